"""Rows of Parquet and Arrow files, each with its number, from 1 on."""

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from batchord.chains.tables.arrow_rows import rows
from batchord.chains.tables.extra import library
from batchord.ledger.errors import SubmitRefused

#: Rows that are held as Python objects at a time.
_PAGE: Final = 1_000


def parquet_rows(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """Yield each row of a Parquet file as a dict of its columns."""
    parquet = library("pyarrow.parquet", "a Parquet file")
    table = parquet.ParquetFile(file)
    return enumerate(rows(table.schema_arrow, table.iter_batches(batch_size=_PAGE)), 1)


def arrow_rows(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """Yield each row of an Arrow file (Feather is one too) or of an Arrow stream."""
    ipc = library("pyarrow.ipc", "an Arrow file")
    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = ipc.open_file(file)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        reader = ipc.open_stream(file)
        batches = iter(reader)
    return enumerate(rows(reader.schema, _pages(batches)), 1)


def refused(error: Exception, kind: str) -> SubmitRefused:
    """Return the refusal of a file that pyarrow cannot read."""
    return SubmitRefused(f"the input is not {kind} that can be read: {str(error)[:200]}")


def _pages(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        for start in range(0, batch.num_rows, _PAGE):
            yield batch.slice(start, _PAGE)
