"""An event loop whose clock is its own: what is timed on it is exact, however busy the machine."""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: the time that would be waited passes at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("nothing will ever happen on this loop")
            self.now += timeout
        return events


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop for code that only sleeps: no sockets, no threads."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, in no time; the time of day is the loop's too."""
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        day = time.time()
        with patch("time.time", lambda: day + runner.get_loop().time()):
            return runner.run(main)


def now() -> float:
    """Seconds of the running loop's own time."""
    return asyncio.get_running_loop().time()
