"""Other versions of Batchord: copies of this tree whose format of the ledger is another."""

import shutil
from pathlib import Path

from batchord.ledger.needs import FORMAT

ROOT = Path(__file__).parents[2]
_FOLDERS = ("batchord", "chains", "gateway", "ledger", "producer", "worker")


def copy_tree(folder: Path, format_: int) -> Path:
    """Copy the product into `folder`, as the version that writes this format; return the folder.

    What runs with it on PYTHONPATH imports that version.
    """
    for name in _FOLDERS:
        shutil.copytree(
            ROOT / name,
            folder / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    needs = folder / "ledger" / "needs.py"
    text, line = needs.read_text(), "FORMAT: Final = {}\n"
    assert text.count(line.format(FORMAT)) == 1
    needs.write_text(text.replace(line.format(FORMAT), line.format(format_)))
    return folder
