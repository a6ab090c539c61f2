"""Inputs out of the values of a file, one by one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from batchord.ledger.errors import SubmitRefused

_KEYS = frozenset({"input", "custom_id"})

#: Takes the JSON value of a line, and its number; gives the input, and its custom_id or None.
Reading = Callable[[int, Any], tuple[Any, str | None]]


def input_of(number: int, value: Any) -> tuple[Any, Any]:
    """Take an object of `input` and `custom_id` apart; anything else is the input."""
    if isinstance(value, dict) and "input" in value and value.keys() <= _KEYS:
        return value["input"], value.get("custom_id")
    return value, None


class InputLines:
    """Inputs from the values of a file, with the numbers of their lines, read as they are needed.

    `reading` says what is in a value: by default the input, or an object of `input` and
    `custom_id` (both, or `input` alone). Either every line has a custom_id or none.
    """

    def __init__(self, numbered: Iterable[tuple[int, Any]], reading: Reading = input_of) -> None:
        parsed = ((number, *reading(number, value)) for number, value in numbered)
        head = next(parsed, None)
        self._ids: deque[str] = deque()
        self._with_ids = head is not None and head[2] is not None
        self._all = chain([] if head is None else [head], parsed)
        self._word = getattr(numbered, "place", "line")
        self._number = 0

    @property
    def custom_ids(self) -> Iterator[str] | None:
        """The custom_ids beside the inputs; None if the lines have none."""
        return self._take_ids() if self._with_ids else None

    @property
    def place(self) -> str:
        """The place in the file of the input that was taken last: `line 5`, or `row 4`."""
        return f"{self._word} {self._number}"

    def __iter__(self) -> Iterator[Any]:
        for index, (number, value, custom_id) in enumerate(self._all):
            self._number = number
            if (custom_id is not None) is not self._with_ids:
                raise SubmitRefused(
                    f"input {index} ({self.place}): give a custom_id on every line or on none"
                )
            if custom_id is not None:
                self._ids.append(custom_id)
            yield value

    def _take_ids(self) -> Iterator[str]:
        # The reader takes an input first and its custom_id next, so that one is always here.
        while self._ids:
            yield self._ids.popleft()
