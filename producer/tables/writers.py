"""Writers of tables: CSV, JSON, Parquet and Arrow, page by page."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import IO, Any, Final, Literal

from batchord.chains.tables.extra import library
from batchord.producer.tables.kinds import arrow_type, fitted
from batchord.producer.tables.layout import Column, Pair, cells

#: Formats of a table; `rows` are JSON objects, a row a line.
Tabular = Literal["csv", "tsv", "json", "rows", "parquet", "arrow"]

#: Rows of one row group or record batch of a file.
_GROUP: Final = 50_000


class TableWriter(ABC):
    """Writes a table whose columns are known."""

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        self._file = file
        self._columns = columns

    @abstractmethod
    def page(self, pairs: Sequence[Pair]) -> None:
        """Write these rows."""

    @abstractmethod
    def end(self) -> None:
        """Complete the file."""


class _Csv(TableWriter):
    _delimiter = ","

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        super().__init__(file, columns)
        self._text([column.name for column in columns])

    def page(self, pairs: Sequence[Pair]) -> None:
        self._text(*([csv_text(cell) for cell in cells(self._columns, pair)] for pair in pairs))

    def end(self) -> None:
        pass

    def _text(self, *rows: Sequence[str]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())


class _Tsv(_Csv):
    _delimiter = "\t"


class _JsonRows(TableWriter):
    _separator = "\n"

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        super().__init__(file, columns)
        self._between = ""

    def page(self, pairs: Sequence[Pair]) -> None:
        names = [column.name for column in self._columns]
        for pair in pairs:
            row = dict(zip(names, cells(self._columns, pair), strict=True))
            self._file.write(f"{self._between}{json.dumps(row, ensure_ascii=False)}".encode())
            self._between = self._separator

    def end(self) -> None:
        self._file.write(b"\n" if self._between else b"")


class _Json(_JsonRows):
    _separator = ",\n"

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        super().__init__(file, columns)
        self._between = "[\n"

    def end(self) -> None:
        self._file.write(b"[]\n" if self._between == "[\n" else b"\n]\n")


class ArrowPages:
    """Record batches of pages of rows."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.pa = library("pyarrow", "a table of Arrow or Parquet")
        self._columns = columns
        self.schema = self.pa.schema(
            [(column.name, arrow_type(self.pa, column.kind)) for column in columns]
        )

    def batch(self, pairs: Sequence[Pair]) -> Any:
        """Return the rows as one record batch."""
        rows = [cells(self._columns, pair) for pair in pairs]
        arrays = [
            self.pa.array([fitted(row[place], column.kind) for row in rows], field.type)
            for place, (column, field) in enumerate(zip(self._columns, self.schema, strict=True))
        ]
        return self.pa.RecordBatch.from_arrays(arrays, schema=self.schema)


class _Arrow(TableWriter):
    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        super().__init__(file, columns)
        self._pages = ArrowPages(columns)
        self._held: list[Any] = []
        self._rows = 0
        self._writer = self._opened()

    def _opened(self) -> Any:
        ipc = library("pyarrow.ipc", "an Arrow file")
        return ipc.new_file(self._file, self._pages.schema)

    def page(self, pairs: Sequence[Pair]) -> None:
        self._held.append(self._pages.batch(pairs))
        self._rows += len(pairs)
        if self._rows >= _GROUP:
            self._flush()

    def end(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            table = self._pages.pa.Table.from_batches(self._held, self._pages.schema)
            self._writer.write_table(table.combine_chunks())
        self._held, self._rows = [], 0


class _Parquet(_Arrow):
    def _opened(self) -> Any:
        parquet = library("pyarrow.parquet", "a Parquet file")
        return parquet.ParquetWriter(self._file, self._pages.schema, compression="zstd")


WRITERS: Final[dict[Tabular, type[TableWriter]]] = {
    "csv": _Csv,
    "tsv": _Tsv,
    "json": _Json,
    "rows": _JsonRows,
    "parquet": _Parquet,
    "arrow": _Arrow,
}

#: Formats whose columns have types.
TYPED: Final = ("parquet", "arrow")


def csv_text(cell: Any) -> str:
    """Return a cell of CSV: text as it is, nothing for null, and else JSON."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
