"""`batchord run --only-new`: rows that have an answer in the output file keep it."""

from collections.abc import Iterator
from typing import Any, cast

import click
from rich.console import Console

from batchord.commands.durable_run import chain_version
from batchord.commands.options import reading_of
from batchord.io.input_file import InputFile
from batchord.io.json_lines import InputLines
from batchord.io.kept_answers import KeptAnswers, Merged, TableNote
from batchord.ledger.settings import Settings
from batchord.local.table_notes import load_note
from batchord.output.result_writer import Target
from batchord.producer.export import TABLES


class OnlyNew:
    """The rows of an input without an answer, and the table that they are merged into."""

    def __init__(self, source: InputFile, table: InputFile, note: TableNote) -> None:
        reading = reading_of(source)

        def rows() -> Iterator[tuple[int, Any, str | None]]:
            return ((line, *reading(line, value)) for line, value in source)

        self._kept = KeptAnswers(table, note)
        self.merged = Merged(rows, self._kept)
        #: By which the same output file is known again.
        self.digest = table.digest()

    def inputs(self) -> InputLines:
        """Return the rows without an answer, with their custom_ids."""
        return InputLines(self.merged.new(), lambda _, pair: cast(tuple[Any, str | None], pair))


def only_new(
    target: Target, source: InputFile, chain: str, settings: Settings, out: Console
) -> OnlyNew | None:
    """Read the answers that the output file has; None if each row of the input is new.

    Raises:
        click.UsageError: the output is not a table, or it is unknown which chain has made it.
    """
    if target.format not in TABLES:
        raise click.UsageError(
            "--only-new is for tables: give --output a name that ends in .csv or .parquet, say, as "
            "other results do not hold the rows that they belong to"
        )
    if not target.path.exists():
        return None
    note = load_note(settings.home, target.path)
    if note is None:
        raise click.UsageError(
            f"--only-new: {settings.home} does not know which chain has made {target.path}: run "
            "once without it, or move that file away"
        )
    if note.chain_version != chain_version(chain):
        out.print(f"Each row runs: the chain has changed since {target.path} was written")
        return None
    table = InputFile(str(target.path))
    table.format = "jsonl" if target.format == "rows" else target.format
    return OnlyNew(source, table, note)
