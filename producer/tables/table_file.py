"""Write the results of a batch as a table, in constant memory.

A column's type depends on all of its cells. Writing begins with what the chain's output schema and
the first page say. If a later row does not fit, the rest is read to its end to learn what all rows
hold, and the file is written once more: no row is ever refused for its type.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import IO, Any, Final, NamedTuple

from batchord.ledger.models import ItemStatus
from batchord.producer.tables.atomic_file import replacing
from batchord.producer.tables.file_kinds import compressing, kind_of
from batchord.producer.tables.kinds import Kind
from batchord.producer.tables.layout import Column, Pair, Shape, renamed
from batchord.producer.tables.remote_file import Destination
from batchord.producer.tables.writers import TYPED, WRITERS, ArrowPages, Tabular

#: Rows that are held at a time.
PAGE: Final = 1_000

#: Gives the rows, from the first one on, each time that it is called.
Pairs = Callable[[], Iterable[Pair]]


class TableWritten(NamedTuple):
    """The result of writing a table."""

    rows: int
    #: Rows whose item has an outcome, and those without an output.
    ended: int
    missing: int
    columns: list[Column]

    @property
    def notes(self) -> list[str]:
        """The renamed columns, a line of text each."""
        return renamed(self.columns)


def write_table(
    path: Destination, pairs: Pairs, format_: Tabular, output_fields: Mapping[str, Kind] | None
) -> TableWritten:
    """Write the rows, all or nothing; compressed if the file's name says so.

    `output_fields`: the fields of the outputs that are known before.
    """
    shape = Shape(output_fields, typed=format_ in TYPED)
    compression = kind_of(path.name).compression
    with replacing(path) as part:
        while True:
            part.seek(0)
            part.truncate()
            with compressing(part, compression) as file:
                written = _write(file, pairs, format_, shape)
            if written is not None:
                return written


def _write(file: IO[bytes], pairs: Pairs, format_: Tabular, shape: Shape) -> TableWritten | None:
    """Write the rows; None if they do not fit the columns that the shape began with."""
    pages = _pages(pairs())
    page = next(pages, [])
    shape.see(page)
    columns = shape.columns()
    writer = WRITERS[format_](file, columns)
    rows = ended = missing = 0
    while page:
        writer.page(page)
        rows += len(page)
        ended += sum(item.status.ended for _, item in page)
        missing += sum(item.status is not ItemStatus.SUCCEEDED for _, item in page)
        page = next(pages, [])
        shape.see(page)
        if page and shape.columns() != columns:
            for page in pages:
                shape.see(page)
            return None
    writer.end()
    return TableWritten(rows, ended, missing, columns)


def arrow_table(pairs: Pairs, output_fields: Mapping[str, Kind] | None) -> Any:
    """Return the rows as a table of pyarrow."""
    shape = Shape(output_fields, typed=True)
    for page in _pages(pairs()):
        shape.see(page)
    columns = shape.columns()
    making = ArrowPages(columns)
    batches = [making.batch(page) for page in _pages(pairs())]
    return making.pa.Table.from_batches(batches, making.schema)


def _pages(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    rest = iter(pairs)
    while page := list(islice(rest, PAGE)):
        yield page
