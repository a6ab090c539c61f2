"""Answers that a table of results has already, for rows of an input that are the same."""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from batchord.chains import Usage
from batchord.io.input_file import InputFile
from batchord.ledger.models import Frozen, Item, ItemStatus
from batchord.producer.tables.layout import Column, Pair
from batchord.producer.tables.writers import csv_text

#: Formats whose cells are all text.
_TEXT: Final = ("csv", "tsv")


class TableNote(Frozen):
    """Describe a table of results: its columns, and the chain that has made its answers."""

    #: What tells the chain that has made the answers from one with other settings.
    chain_version: str
    #: Its columns: names, sides, fields and kinds.
    columns: list[tuple[str, str, str | None, Any]]


def note_of(chain_version: str, columns: Iterable[Column]) -> TableNote:
    """Return the note for a table of these columns."""
    told: list[tuple[str, str, str | None, Any]] = [
        (each.name, each.side, each.field, each.kind) for each in columns
    ]
    return TableNote(chain_version=chain_version, columns=told)


class KeptAnswers:
    """Rows of a table of results that succeeded, by their inputs; on disk, and not in memory."""

    def __init__(self, table: InputFile, note: TableNote) -> None:
        self._columns = [Column(*each) for each in note.columns]  # type: ignore[arg-type]
        self._is_text = table.format in _TEXT
        # Without a name it is a temporary file, which goes with the connection.
        self._rows = sqlite3.connect("")
        self._rows.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, row TEXT) WITHOUT ROWID")
        with self._rows:
            self._rows.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?)", self._answered(table)
            )

    def close(self) -> None:
        """Remove what is on the disk."""
        self._rows.close()

    def find(self, index: int, given: Any, custom_id: str | None) -> Item | None:
        """Return the item of a row of the input with its answer; None: it has none."""
        cells = self._input_cells(given, custom_id)
        if cells is None:
            return None
        found = self._rows.execute("SELECT row FROM rows WHERE key = ?", [self._key(cells)])
        row = found.fetchone()
        return None if row is None else self._item(index, custom_id, json.loads(row[0]))

    def _answered(self, table: InputFile) -> Iterator[tuple[bytes, str]]:
        names = [column.name for column in self._columns]
        status = next(each.name for each in self._columns if each[1:3] == ("own", "status"))
        for _, row in table:
            # A table of text is read without the white space around its names.
            if [*map(str.strip, row)] != [*map(str.strip, names)]:
                continue
            row = dict(zip(names, row.values(), strict=True))
            if row[status] == ItemStatus.SUCCEEDED:
                yield self._key([row[each.name] for each in self._inputs]), json.dumps(row)

    @property
    def _inputs(self) -> list[Column]:
        """The columns that tell rows of the input apart."""
        return [each for each in self._columns if each.side == "input" or each[2] == "custom_id"]

    def _input_cells(self, given: Any, custom_id: str | None) -> Sequence[Any] | None:
        """Return the cells that a row of the input has in the table; None if they do not fit."""
        fields = {each.field for each in self._inputs if each.side == "input"}
        if fields != {None} and (not isinstance(given, dict) or given.keys() - fields):
            return None
        return [
            custom_id
            if each.side == "own"
            else given
            if each.field is None
            else given.get(each.field)
            for each in self._inputs
        ]

    def _key(self, cells: Sequence[Any]) -> bytes:
        texts = [csv_text(cell) if self._is_text else _canonical(cell) for cell in cells]
        return hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).digest()

    def _item(self, index: int, custom_id: str | None, row: dict[str, Any]) -> Item:
        outputs = {
            each.field: self._value(each, row[each.name])
            for each in self._columns
            if each.side == "output"
        }
        cost = row[self._columns[-1].name]
        usage = None if cost in (None, "") else Usage(cost_nanos=round(float(cost) * 1e9))
        return Item(
            index=index,
            custom_id=custom_id,
            status=ItemStatus.SUCCEEDED,
            output=outputs.get(None, outputs),
            usage=usage,
        )

    def _value(self, column: Column, cell: Any) -> Any:
        # In a table with types, such a column holds JSON text.
        typed = not self._is_text and column.kind == "json" and isinstance(cell, str)
        try:
            return json.loads(cell) if typed else cell
        except ValueError:
            return cell


class Merged:
    """The rows of an input, some with the answers that are kept, the others with a batch's."""

    def __init__(
        self, rows: Callable[[], Iterable[tuple[int, Any, str | None]]], kept: KeptAnswers
    ) -> None:
        """Take what gives the rows, each time from the first one on: (line, input, custom_id)."""
        self._rows = rows
        self._kept = kept

    def new(self) -> Iterator[tuple[int, tuple[Any, str | None]]]:
        """Yield the line of each row without an answer, and its input and custom_id."""
        for index, (line, given, custom_id) in enumerate(self._rows()):
            if self._kept.find(index, given, custom_id) is None:
                yield line, (given, custom_id)

    def lines(self) -> Iterator[int]:
        """Yield the line of each row without an answer."""
        return (line for line, _ in self.new())

    def counts(self) -> tuple[int, int]:
        """Return the number of rows with an answer, and of those without."""
        new = total = 0
        for total, (_, given, custom_id) in enumerate(self._rows(), 1):
            new += self._kept.find(total, given, custom_id) is None
        return total - new, new

    def pairs(self, answers: Iterable[Pair]) -> Iterator[Pair]:
        """Yield each row of the input with its item; `answers` are those of the batch, in order."""
        rest = iter(answers)
        for index, (_, given, custom_id) in enumerate(self._rows()):
            kept = self._kept.find(index, given, custom_id)
            if kept is not None:
                yield given, kept
            else:
                new_input, item = next(rest)
                yield new_input, item.model_copy(update={"index": index})


def _canonical(value: Any) -> str:
    """Return the same text for what a table with types may write alike: 1 and 1.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)
