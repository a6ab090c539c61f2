"""Tables as inputs: each row is a dict of the columns, and what is missing is None."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest

from batchord import RemoteRunnable, Runnable, register
from batchord.chains.composition.as_runnable import coerce
from batchord.chains.tables.extra import BadTable
from batchord.chains.tables.frames import table_rows
from batchord.ledger.errors import SubmitRefused
from batchord.producer.submit_options import Submission
from tests.support.harness import Deployment

PLAIN: list[dict[str, Any]] = [{"id": "007", "n": 1, "x": 1.5}, {"id": None, "n": 2, "x": None}]


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


class _Stream:
    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


#: A table by the library that makes it, out of the columns of PLAIN.
TABLES: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "pandas": pd.DataFrame,
    "pandas, filtered": lambda columns: pd.DataFrame(
        {name: [cells[0], "gone", cells[1]] for name, cells in columns.items()}
    ).iloc[[0, 2]],
    "polars": pl.DataFrame,
    "arrow table": pa.table,
    "arrow batch": pa.RecordBatch.from_pydict,
    "arrow reader": lambda columns: pa.table(columns).to_reader(),
    # As a relation of DuckDB: it has the protocol, and neither a length nor an iterator.
    "anything of the protocol": lambda columns: _Stream(pa.table(columns)),
    "folder of Arrow": lambda columns: pyarrow.dataset.dataset(pa.table(columns)),
    "scan of one": lambda columns: pyarrow.dataset.dataset(pa.table(columns)).scanner(),
    "numpy records": lambda columns: np.array(
        list(zip(*columns.values(), strict=True)), dtype=[(name, object) for name in columns]
    ),
    "data set": datasets.Dataset.from_dict,
    "data set, reordered": lambda columns: (
        datasets.Dataset.from_dict(columns).select([1, 0]).select([1, 0])
    ),
    "data set of tensors": lambda columns: datasets.Dataset.from_dict(columns).with_format("numpy"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_row_is_a_dict_of_the_columns(name: str) -> None:
    table = TABLES[name](_columns(PLAIN))
    Submission(chain="x", inputs=table).check()
    rows = table_rows(table)

    assert rows is not None
    assert list(rows) == PLAIN


#: A cell as a library has it, and the JSON value that it becomes.
CELLS: list[tuple[Any, Any]] = [
    (float("nan"), None),
    (pd.NA, None),
    (pd.NaT, None),
    (None, None),
    (np.int64(7), 7),
    (np.float32(0.5), 0.5),
    (np.float64("nan"), None),
    (np.array([1, 2]), [1, 2]),
    (pd.Timestamp("2026-01-02 03:04:05"), "2026-01-02T03:04:05"),
    (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
    (date(2026, 1, 2), "2026-01-02"),
    (Decimal("1.10"), "1.10"),
    ({"a": float("nan"), "b": [np.int8(1)]}, {"a": None, "b": [1]}),
    ("", ""),
    (True, True),
]


@pytest.mark.parametrize(("cell", "value"), CELLS, ids=[repr(cell) for cell, _ in CELLS])
def test_a_cell_becomes_a_json_value(cell: Any, value: Any) -> None:
    # Beside text, so that the column stays one of objects.
    frame = pd.DataFrame({"cell": pd.Series([cell, "text"], dtype=object)})

    rows = table_rows(frame)

    assert rows is not None
    assert list(rows) == [{"cell": value}, {"cell": "text"}]
    assert type(next(iter(rows))["cell"]) is type(value)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([1, None], pa.timestamp("ns")), ["1970-01-01T00:00:00", None]),
        (pa.array([Decimal("1.10")]), ["1.10"]),
        (pa.array([1.0, float("nan")]), [1.0, None]),
        (pa.array([[1.0, float("nan")]]), [[1.0, None]]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([{"a": 1}]), [{"a": 1}]),
        (pa.chunked_array([[1], [2]]), [1, 2]),
        (pl.Series([1, None]), [1, None]),
        (pd.Series([1.0, None]), [1.0, None]),
        (pd.Index(["a", "b"]), ["a", "b"]),
    ],
    ids=str,
)
def test_a_column_alone_is_its_values(column: Any, values: list[Any]) -> None:
    rows = table_rows(column)

    assert rows is not None
    assert list(rows) == values


@pytest.mark.parametrize("inputs", [[1], (1,), iter([1]), range(2), np.zeros(2), {1}])
def test_other_iterables_are_no_tables(inputs: Any) -> None:
    assert table_rows(inputs) is None


@pytest.mark.parametrize(
    ("table", "cure"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are called 'a'"),
        (pd.DataFrame([[1, 2]]), "the column 0 has no text for a name"),
        (pl.LazyFrame({"a": [1]}), "pass frame.collect()"),
        (pa.table([[1], [2]], ["a", "a"]), "two columns are called 'a'"),
    ],
    ids=["twice", "numbers", "lazy", "twice in arrow"],
)
def test_a_table_that_cannot_be_taken_is_refused_with_the_cure(
    traceless: Deployment, table: Any, cure: str
) -> None:
    register("double", lambda number: 2 * number, replace=True)
    with pytest.raises(SubmitRefused, match=re.escape(cure)):
        traceless.client.submit("double", table)
    with pytest.raises(BadTable):
        list(table_rows(table) or ())


def test_submit_and_batch_take_the_rows_of_a_table(shared: Deployment) -> None:
    frame = pd.DataFrame({"seconds": [0, 0], "value": ["007", None], "fail": [None, None]})
    expected = ["007", None]

    assert shared.client.submit("may-fail", frame).outputs() == expected
    assert shared.client.submit("may-fail", pl.from_pandas(frame)).outputs() == expected
    remote = RemoteRunnable("may-fail", client=shared.client)
    assert remote.batch(frame) == expected
    here: Runnable[Any, Any] = coerce(lambda row: row["value"])
    assert here.batch(frame) == expected
    assert shared.client.estimate("may-fail", frame).items == 2
