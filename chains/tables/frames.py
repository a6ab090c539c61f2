"""Take tables of other libraries row by row, as dicts of JSON values.

pandas has a path of its own: Arrow takes no column of mixed types, turns an index into a column,
and fills dicts of a column up to have the same keys. Other libraries (polars, pyarrow, DuckDB) are
read by the protocol of Arrow's C streams. No library is imported for an input of another one.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

from batchord.chains.tables.arrow_rows import check_names, column_values, rows
from batchord.chains.tables.cells import json_cell
from batchord.chains.tables.extra import BadTable, library

#: Rows that are taken at a time.
PAGE: Final = 1_000


def table_rows(inputs: Any) -> Iterable[Any] | None:
    """Return the rows of a table, or the values of a single column; None if `inputs` is neither.

    Rows are dicts of the columns. Missing values (None, NaN, NaT, pd.NA) are None; the index of a
    data frame is not taken. They are read page by page, as they are needed.

    Raises:
        BadTable: the table cannot be taken as it is, or pyarrow is missing.
    """
    if isinstance(inputs, (list, tuple, dict, str, bytes)):
        return None
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(inputs, pandas.DataFrame):
        check_names(list(inputs.columns))
        return _Pages(inputs, _frame_page)
    if pandas is not None and isinstance(inputs, (pandas.Series, pandas.Index)):
        return _Pages(inputs, _series_page)
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(inputs, polars.LazyFrame):
        raise BadTable("inputs: a LazyFrame has no rows yet: pass frame.collect()")
    data_sets = sys.modules.get("datasets")
    if data_sets is not None and isinstance(inputs, data_sets.Dataset):
        return _data_set_rows(inputs)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(inputs, numpy.ndarray) and inputs.dtype.names:
        return _Pages(inputs, _record_page)
    return _arrow_rows(_scanned(inputs))


class _Pages:
    """The rows of a pandas object, cut into pages."""

    def __init__(self, table: Any, page: Any) -> None:
        self._table = table
        self._page = page

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self._table), PAGE):
            yield from self._page(self._table, start)


def _frame_page(frame: Any, start: int) -> list[dict[str, Any]]:
    page = frame.iloc[start : start + PAGE]
    records = page.astype(object).where(page.notna(), None).to_dict("records")
    return [{name: json_cell(cell) for name, cell in row.items()} for row in records]


def _series_page(series: Any, start: int) -> list[Any]:
    page = series.to_series() if hasattr(series, "to_series") else series
    page = page.iloc[start : start + PAGE]
    values = page.astype(object).where(page.notna(), None).tolist()
    return [json_cell(value) for value in values]


def _record_page(records: Any, start: int) -> list[dict[str, Any]]:
    names = records.dtype.names
    page = records[start : start + PAGE].tolist()
    return [{name: json_cell(cell) for name, cell in zip(names, row, strict=True)} for row in page]


def _scanned(inputs: Any) -> Any:
    """Return the stream of record batches that a data set of pyarrow scans; else the inputs."""
    if not is_arrow_data_set(inputs):
        return inputs
    scanner = inputs.scanner() if hasattr(inputs, "scanner") else inputs
    return scanner.to_reader()


def is_arrow_data_set(inputs: Any) -> bool:
    """Whether it is a data set of pyarrow's, as a folder of Parquet files, or a scan of one."""
    data_set = sys.modules.get("pyarrow.dataset")
    return data_set is not None and isinstance(inputs, (data_set.Dataset, data_set.Scanner))


def _data_set_rows(data_set: Any) -> Iterator[Any]:
    # By Arrow and not by the format that it has, which may be tensors; it keeps a shuffled order.
    for table in data_set.with_format("arrow").iter(PAGE):
        yield from rows(table.schema, table.to_batches())


def _arrow_rows(inputs: Any) -> Iterable[Any] | None:
    if hasattr(inputs, "__arrow_c_stream__"):
        pa = library("pyarrow", f"a {type(inputs).__name__} as inputs")
        try:
            reader = pa.RecordBatchReader.from_stream(inputs)
        except pa.ArrowInvalid:  # a column, and no table
            return _column(pa.chunked_array(inputs))
        return rows(reader.schema, _small(reader))
    if hasattr(inputs, "__arrow_c_array__"):
        pa = library("pyarrow", f"a {type(inputs).__name__} as inputs")
        return _column(pa.chunked_array([pa.array(inputs)]))
    return None


def _column(chunks: Any) -> Iterator[Any]:
    for chunk in chunks.chunks:
        for start in range(0, len(chunk), PAGE):
            yield from column_values(chunk.slice(start, PAGE))


def _small(batches: Iterable[Any]) -> Iterator[Any]:
    """Cut record batches so that a page of them is held as Python objects."""
    for batch in batches:
        for start in range(0, batch.num_rows, PAGE):
            yield batch.slice(start, PAGE)
