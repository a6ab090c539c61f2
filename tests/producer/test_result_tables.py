"""Results as tables: a row for each item, the input's columns first, types that hold to the end."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from batchord.chains import Usage
from batchord.io.input_file import InputFile
from batchord.ledger.models import Item, ItemError, ItemStatus
from batchord.producer.tables.kinds import schema_fields
from batchord.producer.tables.layout import Pair
from batchord.producer.tables.table_file import PAGE, arrow_table, write_table
from batchord.producer.tables.writers import Tabular
from tests.support.harness import Deployment


def done(index: int, output: Any, custom_id: str | None = None) -> Item:
    usage = Usage(requests=1, cost_nanos=1_500_000)
    return Item(
        index=index,
        custom_id=custom_id,
        status=ItemStatus.SUCCEEDED,
        output=output,
        usage=usage,
    )


def failed(index: int) -> Item:
    error = ItemError(code="refusal", message="will not do")
    return Item(index=index, status=ItemStatus.FAILED, error=error)


PAIRS: list[Pair] = [
    ({"id": "007", "text": 'a "b"\n,c'}, done(0, {"urgent": True, "score": 1, "tags": ["x", "y"]})),
    ({"id": None, "text": "ü"}, failed(1)),
]
ROWS: list[dict[str, Any]] = [
    {
        **PAIRS[0][0],
        **PAIRS[0][1].output,
        "status": "succeeded",
        "error_code": None,
        "error": None,
        "cost_usd": 0.0015,
    },
    {
        **PAIRS[1][0],
        "urgent": None,
        "score": None,
        "tags": None,
        "status": "failed",
        "error_code": "refusal",
        "error": "will not do",
        "cost_usd": None,
    },
]


def _as_text(cell: Any) -> str | None:
    return cell if cell is None or isinstance(cell, str) else json.dumps(cell)


def _same(rows: list[Any]) -> list[Any]:
    return rows


def _all_text(rows: list[Any]) -> list[Any]:
    """Rows as CSV has them."""
    return [{name: _as_text(cell) for name, cell in row.items()} for row in rows]


#: Names of files by format, and what the rows are once they have been there.
FORMATS: dict[Tabular, tuple[str, Callable[[list[Any]], list[Any]]]] = {
    "csv": ("out.csv", _all_text),
    "tsv": ("out.tsv.gz", _all_text),
    "json": ("out.json.zst", _same),
    "rows": ("out.jsonl", _same),
    "parquet": ("out.parquet", _same),
    "arrow": ("out.arrow", _same),
}


def _read(path: Path) -> list[Any]:
    return [value for _, value in InputFile(str(path))]


def test_every_format_has_a_row_here() -> None:
    assert FORMATS.keys() == set(get_args(Tabular))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_row_has_the_input_the_output_and_what_became_of_it(
    tmp_path: Path, format_: Tabular
) -> None:
    name, told = FORMATS[format_]

    written = write_table(tmp_path / name, lambda: PAIRS, format_, None)

    assert (written.rows, written.ended, written.missing, written.notes) == (2, 2, 1, [])
    assert _read(tmp_path / name) == told(ROWS)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("format_", FORMATS)
def test_no_row_is_refused_for_its_type_however_late_it_comes(
    tmp_path: Path, format_: Tabular
) -> None:
    name, told = FORMATS[format_]
    count = 2 * PAGE + 5
    outputs: list[Any] = [{"n": 1, "same": "x", "more": None} for _ in range(count)]
    outputs[count - 2] = {"n": 1.5, "same": {"now": "an object"}, "late": [1]}
    pairs = [({"i": index}, done(index, output)) for index, output in enumerate(outputs)]

    written = write_table(tmp_path / name, lambda: pairs, format_, None)

    rows = _read(tmp_path / name)
    assert written.rows == len(rows) == count
    last = rows[count - 2]
    if format_ in ("parquet", "arrow"):
        # What has no type in common is JSON text, of all rows.
        assert (rows[0]["same"], json.loads(last["same"])) == ('"x"', {"now": "an object"})
        assert (rows[0]["n"], last["n"], last["late"], rows[0]["late"]) == (1.0, 1.5, [1], None)
    else:
        [expected] = told([{"n": 1.5, "same": {"now": "an object"}, "late": [1]}])
        assert {key: last[key] for key in expected} == expected
        assert rows[0]["late"] is None


#: Cells of a column, and the type and the values that it has in Arrow.
COLUMNS: list[tuple[list[Any], pa.DataType, list[Any]]] = [
    ([1, None, 2], pa.int64(), [1, None, 2]),
    ([1, 2.5], pa.float64(), [1.0, 2.5]),
    ([2**60, 1], pa.int64(), [2**60, 1]),
    ([2**60, 1.5], pa.string(), [str(2**60), "1.5"]),
    ([2**63], pa.string(), [str(2**63)]),
    ([True, 1], pa.string(), ["true", "1"]),
    (["a", "b"], pa.string(), ["a", "b"]),
    (["a", 1], pa.string(), ['"a"', "1"]),
    ([[1], [], [2.5]], pa.list_(pa.float64()), [[1.0], [], [2.5]]),
    ([[1], "a"], pa.string(), ["[1]", '"a"']),
    (
        [{"a": 1}, {"b": "x"}],
        pa.struct([("a", pa.int64()), ("b", pa.string())]),
        [{"a": 1, "b": None}, {"a": None, "b": "x"}],
    ),
    ([{}, {"a": 1}], pa.string(), ["{}", '{"a": 1}']),
    (
        [[{"a": [1]}], [{"a": ["x"]}]],
        pa.list_(pa.struct([("a", pa.list_(pa.string()))])),
        [[{"a": ["1"]}], [{"a": ['"x"']}]],
    ),
    ([None], pa.string(), [None]),
]


@pytest.mark.parametrize(("cells", "kind", "values"), COLUMNS, ids=[str(c[0]) for c in COLUMNS])
def test_a_column_has_the_type_that_all_its_cells_fit(
    cells: list[Any], kind: pa.DataType, values: list[Any]
) -> None:
    pairs: list[Pair] = [({"cell": cell}, done(i, i)) for i, cell in enumerate(cells)]

    column = arrow_table(lambda: pairs, None)["cell"]

    assert (column.type, column.to_pylist()) == (kind, values)


SCHEMA = {
    "type": "object",
    "properties": {
        "level": {"$ref": "#/$defs/Level"},
        "score": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "$defs": {"Level": {"type": "string", "enum": ["low", "high"]}},
}


def test_the_schema_of_outputs_gives_columns_and_types_where_all_have_failed() -> None:
    fields = schema_fields(SCHEMA)
    table = arrow_table(lambda: [({"id": 1}, failed(0))], fields)

    assert table.column_names[:4] == ["id", "level", "score", "tags"]
    assert table.schema.field("score").type == pa.float64()
    no_objects: list[Any] = [None, {"type": "string"}, {"type": "object"}]
    assert [schema_fields(schema) for schema in no_objects] == [None, None, None]


#: Pairs, the names of the columns, and what is said of renamed ones.
NAMES: list[tuple[list[Pair], list[str], int]] = [
    ([("text", done(0, "answer"))], ["input", "output"], 0),
    ([({"a": 1}, done(0, [1.0]))], ["a", "output"], 0),
    ([({"a": 1}, done(0, {"b": 1})), ({"a": 2}, done(1, "no object"))], ["a", "output"], 0),
    ([({"a": 1}, done(0, {"a": 2}))], ["a", "a_output"], 1),
    ([({"a": 1, "a_output": 1}, done(0, {"a": 2}))], ["a", "a_output", "a_output_2"], 1),
    ([({"status": "new"}, done(0, "x"))], ["status", "output", "status_output"], 1),
    ([({"id": 7}, done(0, "x", "7"))], ["id", "output"], 0),
    ([({"id": 7}, done(0, "x", "seven"))], ["custom_id", "id", "output"], 0),
    (
        [({"a": 7, "id": 7}, done(0, "x", "7")), ({"a": 7, "id": 8}, done(1, "x", "8"))],
        ["a", "id", "output"],
        0,
    ),
]


@pytest.mark.parametrize(("pairs", "names", "notes"), NAMES, ids=[str(n[1]) for n in NAMES])
def test_columns_have_names_of_their_own(
    tmp_path: Path, pairs: list[Pair], names: list[str], notes: int
) -> None:
    written = write_table(tmp_path / "out.csv", lambda: pairs, "csv", None)

    header = (tmp_path / "out.csv").read_text().splitlines()[0].split(",")
    own = ["status", "error_code", "error", "cost_usd"]
    expected = [*names, *own] if notes == 0 or "status" not in names else [*names, *own[1:]]
    assert header == expected
    assert len(written.notes) == notes


def test_a_table_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("kept")

    def broken() -> Any:
        yield PAIRS[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_table(tmp_path / "out.csv", broken, "csv", None)
    assert (tmp_path / "out.csv").read_text() == "kept"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_batch_gives_its_results_as_tables(shared: Deployment, tmp_path: Path) -> None:
    rows = [
        {"id": "007", "value": {"n": 1, "ok": True}, "fail": None},
        {"id": "008", "value": None, "fail": "chain"},
    ]
    batch = shared.client.submit("may-fail", pd.DataFrame(rows), custom_ids=["007", "008"])

    table = batch.to_arrow()

    names = ["id", "value", "fail", "n", "ok", "status", "error_code", "error", "cost_usd"]
    assert table.column_names == names
    expected: list[dict[str, Any]] = [
        {"id": "007", "n": 1, "ok": True, "status": "succeeded", "error_code": None},
        {"id": "008", "n": None, "ok": None, "status": "failed", "error_code": "refusal"},
    ]
    kept = list(expected[0])
    assert table.select(kept).to_pylist() == expected
    assert batch.to_polars().select(kept).to_dicts() == expected
    frame = batch.to_pandas()
    assert frame["n"].dtype == pd.Int64Dtype()
    assert (frame["n"][0], frame["n"].isna()[1]) == (1, True)
    for name in ("out.csv.gz", "out.parquet"):
        assert batch.export(tmp_path / name) == (2, 1)
    assert pl.read_parquet(tmp_path / "out.parquet").select(kept).to_dicts() == expected
    text = gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).decode()
    assert [row["id"] for row in csv.DictReader(io.StringIO(text))] == ["007", "008"]
