"""Reading a pipe or a terminal without missing a signal.

Python looks for signals between its own steps. One that comes after the last look and before a
read that waits is not seen until there is something to read: Ctrl-C does nothing.
"""

import io
import os
import select
from typing import Any, BinaryIO, Final

#: Seconds between two looks for a signal.
LOOK: Final = 0.2


class _Raw(io.RawIOBase):
    """A descriptor that is read only when that does not wait; it is left open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def readable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def readinto(self, buffer: Any) -> int:
        """Read what there is; 0 at the end."""
        while not select.select([self._descriptor], [], [], LOOK)[0]:
            pass
        found = os.read(self._descriptor, len(buffer))
        buffer[: len(found)] = found
        return len(found)


def interruptible(descriptor: int) -> BinaryIO:
    """Return the bytes of a descriptor as a file."""
    return io.BufferedReader(_Raw(descriptor))
