"""The header `Range` of one range of bytes."""

import re
from typing import Final, NamedTuple

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)


class Part(NamedTuple):
    """The bytes `start` to `stop` of `size`."""

    start: int
    stop: int
    size: int

    @property
    def header(self) -> str:
        """The header `Content-Range`."""
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


class Unsatisfiable(Exception):
    """The range begins behind the end of the file."""


def part_of(header: str | None, size: int) -> Part | None:
    """Return the part of a file that is asked for; None: all of it.

    Raises:
        Unsatisfiable: there are no such bytes.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or not (found[1] or found[2]):
        return None  # several ranges, or another unit: a server may answer with all
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start = int(found[1])
        stop = min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= stop:
        raise Unsatisfiable
    return Part(start, stop, size)
