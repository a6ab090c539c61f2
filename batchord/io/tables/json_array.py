"""The values of a JSON array, read one by one and never held whole."""

import json
from collections.abc import Iterator
from typing import Any, Final, TextIO

from batchord.ledger.errors import SubmitRefused

#: Characters that are read at a time.
_CHUNK: Final = 65_536
#: Characters of one value, at most.
_LONGEST: Final = 64_000_000

_SPACE: Final = " \t\r\n"


def array_values(text: TextIO) -> Iterator[tuple[int, Any]]:
    """Yield each value of the array, with the number of the line on which it begins.

    Raises:
        SubmitRefused: the text is not one JSON array; the message names the line.
    """
    window = _Window(text)
    if window.peek() != "[":
        raise SubmitRefused(
            f"line {window.line} is not the beginning of a JSON array: give a file with a value on "
            "each line a name that ends in .jsonl, or say --input-format jsonl"
        )
    window.skip()
    follows = window.peek()
    while follows != "]":
        yield window.line, window.value()
        follows = window.peek()
        if follows not in (",", "]"):
            raise SubmitRefused(f"line {window.line} is not JSON: expected a comma or a bracket")
        if follows == ",":
            window.skip()
            window.peek()  # to the line of the next value
    window.skip()
    if window.peek():
        raise SubmitRefused(f"line {window.line}: there is more behind the end of the JSON array")


class _Window:
    """The part of a text that is looked at."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._decoder = json.JSONDecoder()
        self._held = ""
        self._at = 0
        #: The line of the position in the text.
        self.line = 1

    def peek(self) -> str:
        """Return the next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in _SPACE:
                self.line += self._held[self._at] == "\n"
                self._at += 1
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._read(_CHUNK):
                return ""

    def skip(self) -> None:
        """Pass over one character."""
        self._at += 1

    def value(self) -> Any:
        """Return the JSON value that begins here or behind white space."""
        self.peek()
        size = _CHUNK
        while True:
            value, end, why = self._decoded()
            if not why:
                self.line += self._held.count("\n", self._at, end)
                self._at = end
                return value
            # Each time twice as much, so that a long value is not read over and over.
            if len(self._held) - self._at > _LONGEST or not self._read(size):
                raise SubmitRefused(f"line {self.line} is not JSON: {why}")
            size *= 2

    def _decoded(self) -> tuple[Any, int, str]:
        """Return the value and where it ends; or why it cannot be read, perhaps not yet."""
        try:
            value, end = self._decoder.raw_decode(self._held, self._at)
        except json.JSONDecodeError as error:
            return None, 0, error.msg  # its line and column count from where we began to read
        except (ValueError, RecursionError) as error:
            return None, 0, str(error)
        # A number may go on behind what was read.
        return value, end, "" if end < len(self._held) else "it ends too early"

    def _read(self, size: int) -> bool:
        more = self._text.read(size)
        self._held = self._held[self._at :] + more
        self._at = 0
        return bool(more)
