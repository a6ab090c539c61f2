"""The file that results go to, in the format that was asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args

import click

from batchord.chains.extras import check_installed
from batchord.chains.tables.extra import library
from batchord.io import openai_lines
from batchord.io.located import Locate, unlocated
from batchord.io.paths import Output
from batchord.ledger.models import Item
from batchord.producer import Batch, export
from batchord.producer.export import NotVectors, write_lines, write_matrix
from batchord.producer.tables.atomic_file import packed
from batchord.producer.tables.file_kinds import kind_of
from batchord.producer.tables.kinds import Kind
from batchord.producer.tables.layout import Column, Pair
from batchord.producer.tables.remote_file import Destination, NotWritten
from batchord.producer.tables.table_file import Pairs, write_table
from batchord.producer.tables.writers import TYPED, Tabular

F = TypeVar("F", bound=Callable[..., Any])

Format = Literal["jsonl", "openai", "npy", "csv", "tsv", "json", "rows", "parquet", "arrow"]


#: Takes rows of a table in order, and gives them with others in between.
Merge = Callable[[Iterable[Pair]], Iterable[Pair]]


def unmerged(pairs: Iterable[Pair]) -> Iterable[Pair]:
    """Return the rows as they are: there are no others."""
    return pairs


class Written(NamedTuple):
    """The number of written items, and the files."""

    #: Items that have ended.
    items: int
    #: Where they are, and what to know about it.
    where: str
    #: The columns of a table; None for other formats.
    columns: list[Column] | None = None


@dataclass(frozen=True)
class Target:
    """Where results go: a file, or two, that appear whole or not at all; each may be at a URL."""

    path: Destination
    format: Format
    #: Where lines of requests that have failed go, as OpenAI has it; None: among the others.
    errors: Destination | None = None

    def __post_init__(self) -> None:
        if self.errors is not None and self.format != "openai":
            raise click.UsageError("--errors is for --format openai: the others have one file")
        if self.errors is not None and str(self.errors.absolute()) == str(self.path.absolute()):
            raise click.UsageError("--errors and --output name the same file")

    def check(self, output_schema: Mapping[str, Any] | None) -> None:
        """Refuse what the outputs of this schema could not be written as; None: it is unknown.

        Raises:
            click.UsageError: no matrix can be made of them, or it would be compressed.
            BadTable, MissingExtra: pyarrow or numpy is missing.
        """
        compression = kind_of(self.path.name).compression
        if self.format in TYPED or compression == "zstd":
            library("pyarrow", f"the file {self.path}")
        if self.format != "npy":
            return
        check_installed("numpy", f"the file {self.path}")
        if compression is not None:
            raise click.UsageError("a matrix is not compressed: name a file as vectors.npy")
        kind = "array" if output_schema is None else output_schema.get("type", "array")
        if kind != "array":
            raise click.UsageError(
                f"npy is for vectors, as of --embed, and the outputs of this chain are of type "
                f"{kind}: name a file as answers.csv or answers.jsonl"
            )

    def write(
        self,
        batch: Batch | None,
        *,
        wait: bool,
        locate: Locate = unlocated,
        merge: Merge = unmerged,
    ) -> Written:
        """Write the results. Without `wait`, what has not ended is left out, or has no output.

        `locate` adds to errors where in the input their items stand. `merge` puts other rows of a
        table in between. `batch`: None if there are no rows but these.

        Raises:
            NotVectors, NotAnswers: they do not fit the format; they are in a file beside it, as
                JSON lines.
            NotWritten: the disk is full, say, or an upload failed. Nothing is replaced.
        """
        with _named():
            if batch is None:
                return self._table(lambda: merge(()), None)
            items = Ended(lambda: locate(batch.results() if wait else batch.items()))
            return self._write_or_keep(batch, items, merge)

    def _write_or_keep(self, batch: Batch, items: "Ended", merge: Merge) -> Written:
        try:
            return self._write(batch, items, merge)
        except (NotVectors, openai_lines.NotAnswers) as error:
            # What was paid for must not be lost with the server that a `run` takes down.
            beside = self.path.with_name(f"{self.path.name}.jsonl")
            write_lines(beside, items)
            raise type(error)(f"{error}. The results are in {beside} as JSON lines") from None

    def _write(self, batch: Batch, items: "Ended", merge: Merge) -> Written:
        if self.format == "openai":
            return self._answers(batch.id, items)
        if self.format == "jsonl":
            write_lines(self.path, items)
            return Written(items.count, str(self.path))
        if self.format != "npy":
            # Rows that have not ended stand there as well: each row of the input has one.
            return self._table(lambda: merge(batch.pairs(items.among_all())), batch.output_fields())
        total = batch.record().request_counts.total
        missing = write_matrix(self.path, items.among_all(), total).missing
        note = f" ({missing} of {total} rows are NaN, for want of an output)" if missing else ""
        return Written(items.count, f"{self.path}{note}")

    def _table(self, pairs: Pairs, fields: Mapping[str, Kind] | None) -> Written:
        written = write_table(self.path, pairs, cast(Tabular, self.format), fields)
        notes = "".join(f"\nNote: {note}" for note in written.notes)
        return Written(written.ended, f"{self.path}{notes}", written.columns)

    def _answers(self, batch_id: str, items: "Ended") -> Written:
        bad = 0
        with ExitStack() as stack:
            answers = errors = stack.enter_context(packed(self.path))
            if self.errors is not None:
                errors = stack.enter_context(packed(self.errors))
            for item in items:
                failed = openai_lines.is_error(item)
                bad += failed
                (errors if failed else answers).write(openai_lines.line(batch_id, item).encode())
        note = "" if self.errors is None else f" (failed: {bad}, in {self.errors})"
        return Written(items.count, f"{self.path}{note}")


@contextmanager
def _named() -> Iterator[None]:
    """Turn an error of the disk into NotWritten."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise  # it is no error of the operating system
        file = f"{error.filename!r}: " if error.filename else ""
        raise NotWritten(f"cannot write the results: {file}{error.strerror}") from error


class Ended:
    """The items of a stream that have ended, and how many those are."""

    def __init__(self, items: Callable[[], Iterable[Item]]) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Iterator[Item]:
        return (item for item in self.among_all() if item.status.ended)

    def among_all(self) -> Iterator[Item]:
        """All items; those that have ended are counted."""
        self.count = 0
        for item in self._items():
            self.count += item.status.ended
            yield item


def format_of(given: Format | None, path: Destination | None, default: Format = "jsonl") -> Format:
    """Return the format that was asked for; else what the file's name says, else the default."""
    if given is not None:
        return given
    named = "jsonl" if path is None else export.format_of_name(path.name)
    return default if named == "jsonl" else named


def format_options(command: F) -> F:
    """Add how results are written."""
    for option in (
        click.option(
            "--errors",
            "errors_path",
            type=Output(),
            help="Failed requests go into this file, as OpenAI has it, and not among the others.",
        ),
        click.option(
            "--format",
            "format_",
            type=click.Choice(get_args(Format)),
            help="jsonl: a result a line. openai: requests and answers of OpenAI's Batch API. "
            "npy: outputs as one float32 matrix. csv, tsv, json, rows (an object a line), parquet, "
            "arrow: a table with the columns of the input. Without it, what the name of the file "
            "says.",
        ),
    ):
        command = option(command)
    return command
