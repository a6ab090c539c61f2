"""Rows of an input that have an answer in a table of results keep it, whatever its format."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import Chat, Prompt, Usage, register
from batchord.commands.durable_run import chain_version
from batchord.io.input_file import InputFile
from batchord.io.kept_answers import KeptAnswers, Merged, TableNote, note_of
from batchord.ledger.models import Item, ItemStatus
from batchord.producer.tables.layout import Pair
from batchord.producer.tables.table_file import write_table
from batchord.producer.tables.writers import Tabular

GIVEN: list[Any] = [
    {"id": "1", "n": 1, "x": 0.5, "tags": ["a", "b"]},
    {"id": "2", "n": None, "x": 2.0, "tags": []},
    {"id": "3", "n": 3, "x": None, "tags": None},
]
OUTPUT: list[Any] = [{"level": "low", "more": [1]}, {"level": "high", "more": "text"}, None]

#: Formats, and the name that a file of each has.
NAMES: dict[Tabular, str] = {
    "csv": "out.csv.gz",
    "tsv": "out.tsv",
    "json": "out.json",
    "rows": "out.jsonl",
    "parquet": "out.parquet",
    "arrow": "out.arrow",
}


def item(index: int, output: Any, custom_id: str | None = None) -> Item:
    status = ItemStatus.FAILED if output is None else ItemStatus.SUCCEEDED
    usage = Usage(cost_nanos=1_250_000)
    return Item(index=index, custom_id=custom_id, status=status, output=output, usage=usage)


def kept_in(path: Path, format_: Tabular, pairs: list[Pair]) -> tuple[KeptAnswers, InputFile]:
    written = write_table(path, lambda: pairs, format_, None)
    table = InputFile(str(path))
    note = note_of("1", written.columns)
    return KeptAnswers(table, TableNote.model_validate_json(note.model_dump_json())), table


@pytest.mark.parametrize("format_", NAMES)
def test_written_again_the_rows_that_are_kept_are_as_they_were(
    tmp_path: Path, format_: Tabular
) -> None:
    path = tmp_path / NAMES[format_]
    old = [(given, item(i, OUTPUT[i])) for i, given in enumerate(GIVEN)]
    kept, table = kept_in(path, format_, old)
    before = list(table)
    new = {"id": "0", "n": 0, "x": 1.5, "tags": ["c"]}
    rows = [(2, new, None), *((3 + i, given, None) for i, given in enumerate(GIVEN))]
    merged = Merged(lambda: rows, kept)

    assert merged.counts() == (2, 2)
    assert [(line, given["id"]) for line, (given, _) in merged.new()] == [(2, "0"), (5, "3")]
    assert list(merged.lines()) == [2, 5]
    answers = [(new, item(0, OUTPUT[0])), (GIVEN[2], item(1, OUTPUT[0]))]
    pairs = list(merged.pairs(answers))
    assert [answer.index for _, answer in pairs] == [0, 1, 2, 3]
    write_table(path, lambda: pairs, format_, None)

    after = [value for _, value in table]
    assert after[1:3] == [value for _, value in before[:2]]
    assert [row["id"] for row in after] == ["0", "1", "2", "3"]
    assert {json.dumps(row["cost_usd"]).strip('"') for row in after} == {"0.00125"}
    kept.close()


#: A row that differs from one with an answer, and how.
OTHERS: dict[str, tuple[Any, str | None]] = {
    "another cell": ({"a": "y", "b": 1}, "id"),
    "another type": ({"a": "x", "b": True}, "id"),
    "a column more": ({"a": "x", "b": 1, "c": 1}, "id"),
    "no object": ("x", "id"),
    "another custom_id": ({"a": "x", "b": 1}, "other"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_row_that_differs_is_not_kept(tmp_path: Path, name: str) -> None:
    given = {"a": "x", "b": 1}
    kept, _ = kept_in(tmp_path / "out.json", "json", [(given, item(0, "answer", "id"))])

    found = kept.find(0, given, "id")
    assert found is not None
    assert found.output == "answer"
    assert kept.find(0, *OTHERS[name]) is None
    kept.close()


def test_a_chain_with_another_prompt_model_or_version_is_another_one() -> None:
    def version(prompt: str, model: str, number: str | None = None) -> str:
        register("kept", Prompt(prompt) | Chat(model), version=number, replace=True)
        return chain_version("kept")

    same = [version("{a}", "m"), version("{a}", "m")]
    others = [version("{a}?", "m"), version("{a}", "n"), version("{a}", "m", "2")]
    assert len({*same, *others}) == 1 + len(others)
