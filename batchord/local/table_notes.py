"""Notes beside tables of results, under BATCHORD_HOME: which chain has made their answers."""

from hashlib import sha256
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from batchord.io.kept_answers import TableNote
from batchord.ledger.core.private_files import open_private, private_folder
from batchord.producer.tables.remote_file import Destination

_FOLDER: Final = "outputs"


def save_note(home: Path, table: Destination, note: TableNote) -> None:
    """Keep the note for the table at this path or URL, in place of an earlier one."""
    private_folder(home)
    private_folder(home / _FOLDER)
    path = _path(home, table)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with open_private(part) as file:
        file.write(note.model_dump_json().encode())
    part.replace(path)


def load_note(home: Path, table: Destination) -> TableNote | None:
    """Return the note for the table at this path or URL; None if it has not been noted."""
    try:
        return TableNote.model_validate_json(_path(home, table).read_bytes())
    except (OSError, ValidationError):
        return None


def _path(home: Path, table: Destination) -> Path:
    name = sha256(str(table.absolute()).encode()).hexdigest()[:32]
    return home / _FOLDER / f"{name}.json"
