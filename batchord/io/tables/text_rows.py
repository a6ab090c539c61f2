"""Rows of CSV, of JSON lines and of plain text, each with the number of its line."""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from batchord.ledger.errors import SubmitRefused

#: Characters of one cell, at most: more is a quote that is never closed.
_LONGEST_CELL: Final = 16_000_000
#: What stands between cells, if the first line has it outside of quotes; the first of these counts.
_DELIMITERS: Final = (",", ";", "\t", "|")
_QUOTED: Final = re.compile(r'"[^"]*(?:"|$)')
#: The line in which Excel says what stands between cells.
_SEPARATOR: Final = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


def csv_rows(text: Iterable[str], delimiter: str | None = None) -> Iterator[tuple[int, Any]]:
    """Yield each row of a CSV file as a dict by the names in its first line.

    A cell is the text that stands in the file, and None if it is empty. Empty lines are passed
    over, and so is white space around a name. `delimiter`: None is what the first line has of a
    comma, a semicolon, a tab and a bar, in this order, or what Excel's line `sep=;` says.

    Raises:
        SubmitRefused: the file is not CSV, or a row is longer or shorter than the first line.
    """
    csv.field_size_limit(_LONGEST_CELL)
    lines = iter(text)
    first, skipped = _first(lines, 0)
    if told := _SEPARATOR.fullmatch(first.rstrip("\r\n")):
        delimiter = delimiter or told[1]
        first, skipped = _first(lines, skipped + 1)
    if delimiter is None:
        bare = _QUOTED.sub("", first)
        delimiter = next((each for each in _DELIMITERS if each in bare), ",")
    _refuse_json(first)
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    for number, cells in _numbered(reader, skipped):
        if names is None:
            names = _header(number, cells)
        elif len(cells) != len(names):
            raise SubmitRefused(
                f"line {number} has {len(cells)} cells, and the first line has {len(names)}, with "
                f"{delimiter!r} between them: quote cells that hold separators or line breaks"
            )
        else:
            yield number, {n: cell or None for n, cell in zip(names, cells, strict=True)}


def _first(lines: Iterator[str], skipped: int) -> tuple[str, int]:
    """Return the next line that is not empty, and the number of lines before it."""
    for line in lines:
        if line.strip():
            return line, skipped
        skipped += 1
    return "", skipped


def _numbered(reader: Any, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty, with the number of the line on which it begins.

    `skipped`: lines before those that the reader has.
    """
    while True:
        number = skipped + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise SubmitRefused(
                f"the row that begins on line {number} is not CSV: {error}"
            ) from None
        if cells is None:
            return
        if cells and not (len(cells) == 1 and cells[0].isspace()):
            yield number, cells


def _header(number: int, cells: list[str]) -> list[str]:
    # pandas leaves the first name empty, over the index that it writes.
    names = [cell.strip() or f"column_{place}" for place, cell in enumerate(cells, 1)]
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
