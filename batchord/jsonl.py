"""JSON lines in and out: inputs one by one, results in input order."""

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ledger.errors import SubmitRefused
from ledger.models import Item

_KEYS = frozenset({"input", "custom_id"})


class InputLines:
    """Inputs from JSON lines, read as they are needed.

    A line is one JSON value, the input; or an object of `input` and `custom_id` (both, or `input`
    alone). Either every line has a custom_id or none. Empty lines are passed over.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        numbered = ((n, text) for n, text in enumerate(_decoded(lines), 1) if text.strip())
        parsed: Iterator[tuple[Any, Any]] = map(_parse, numbered)
        head = next(parsed, None)
        self._ids: deque[str] = deque()
        self._with_ids = head is not None and head[1] is not None
        self._all = chain([] if head is None else [head], parsed)

    @property
    def custom_ids(self) -> Iterator[str] | None:
        """The custom_ids beside the inputs; None if the lines have none."""
        return self._take_ids() if self._with_ids else None

    def __iter__(self) -> Iterator[Any]:
        for number, (value, custom_id) in enumerate(self._all):
            if (custom_id is not None) is not self._with_ids:
                raise SubmitRefused(f"input {number}: give a custom_id on every line or on none")
            if custom_id is not None:
                self._ids.append(custom_id)
            yield value

    def _take_ids(self) -> Iterator[str]:
        # The reader takes an input first and its custom_id next, so that one is always here.
        while self._ids:
            yield self._ids.popleft()


def _decoded(lines: Iterable[str]) -> Iterator[str]:
    try:
        # Through `chain`, as this generator's end must not close the file.
        yield from chain(lines)
    except UnicodeDecodeError as error:
        raise SubmitRefused(f"the input is not UTF-8 ({error}): convert it first") from None


def _parse(numbered: tuple[int, str]) -> tuple[Any, Any]:
    number, line = numbered
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SubmitRefused(f"line {number} is not JSON: {error}") from None
    if isinstance(value, dict) and "input" in value and value.keys() <= _KEYS:
        return value["input"], value.get("custom_id")
    return value, None


def line(item: Item) -> str:
    """One result as a JSON line."""
    return item.model_dump_json(exclude_none=False) + "\n"


def write(path: Path, items: Iterable[Item]) -> int:
    """Write the results, all or nothing; return how many."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    try:
        with part.open("w", encoding="utf-8") as file:
            for item in items:
                file.write(line(item))
                count += 1
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count
