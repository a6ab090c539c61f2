"""Rows of CSV, of JSON lines and of plain text, each with the number of its line."""

import csv
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from batchord.ledger.errors import SubmitRefused

#: Characters of one cell, at most: more is a quote that is never closed.
_LONGEST_CELL: Final = 16_000_000


def csv_rows(text: Iterable[str], delimiter: str | None = None) -> Iterator[tuple[int, Any]]:
    """Yield each row of a CSV file as a dict by the names in its first line.

    A cell is the text that stands in the file, and None if it is empty. Empty lines are passed
    over. `delimiter`: None is a comma, or a semicolon where the first line has no comma.

    Raises:
        SubmitRefused: the file is not CSV, or a row is longer or shorter than the first line.
    """
    csv.field_size_limit(_LONGEST_CELL)
    lines = iter(text)
    first = next(lines, "")
    if delimiter is None:
        delimiter = ";" if ";" in first and "," not in first else ","
    _refuse_json(first)
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    for number, cells in _numbered(reader):
        if names is None:
            names = _header(number, cells)
        elif len(cells) != len(names):
            raise SubmitRefused(
                f"line {number} has {len(cells)} cells, and the first line has {len(names)}: "
                "quote cells that hold separators or line breaks"
            )
        else:
            yield number, {n: cell or None for n, cell in zip(names, cells, strict=True)}


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty, with the number of the line on which it begins."""
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise SubmitRefused(
                f"the row that begins on line {number} is not CSV: {error}"
            ) from None
        if cells is None:
            return
        if cells:
            yield number, cells


def _header(number: int, cells: list[str]) -> list[str]:
    # pandas leaves the first name empty, over the index that it writes.
    names = [cell or f"column_{place}" for place, cell in enumerate(cells, 1)]
    for name in names:
        if names.count(name) > 1:
            raise SubmitRefused(f"line {number}: two columns are called {name!r}: rename one")
    return names


def _refuse_json(first: str) -> None:
    if first.lstrip().startswith(("{", "[")):
        try:
            json.loads(first)
        except ValueError:
            return
        raise SubmitRefused(
            "line 1 is JSON, not CSV: give the file a name that ends in .jsonl, or say "
            "--input-format jsonl"
        )


def json_lines(text: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """Yield the JSON value of each line that is not empty.

    Raises:
        SubmitRefused: a line is not JSON, or the only line is an array of several objects.
    """
    parsed = _json_values(text)
    first = next(parsed, None)
    if first is None:
        return
    if not _is_table(first[1]):
        yield first
        yield from parsed
        return
    second = next(parsed, None)
    if second is None:
        raise SubmitRefused(
            f"the only line is an array of {len(first[1])} objects, which would be one input: give "
            'the file a name that ends in .json, or say --input-format json; or write {"input": '
            "[...]}, if it is one"
        )
    yield first
    yield second
    yield from parsed


def _json_values(text: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SubmitRefused(f"line {number} is not JSON: {error}") from None


def _is_table(value: Any) -> bool:
    """Return whether it looks as a file of inputs does that is one JSON array."""
    return (
        isinstance(value, list) and len(value) > 1 and all(isinstance(each, dict) for each in value)
    )


def text_lines(text: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield each line that is not empty, without its line break."""
    for number, line in enumerate(text, 1):
        if line.strip():
            yield number, line.rstrip("\r\n")
