"""The lag of the event loop: time in which no code of a process could run, and its cause.

A loop can be held up by code that blocks it, and stand still with its whole process (SIGSTOP, a
paused machine, swapping). Neither is time that an item has had.
"""

import asyncio
import time
from typing import Final

from batchord.chains.runtime.background import call_later

#: Seconds between two ticks of the loop.
TICK: Final = 0.1
#: Seconds that a tick may be late on a machine that is merely busy.
SLACK: Final = 0.2


class LoopLag:
    """Ticks on one event loop, and sums up the time in which it could run nothing."""

    def __init__(self) -> None:
        #: Seconds in which nothing could run, in all.
        self.lost = 0.0
        #: When the loop last ran something, by the monotonic clock.
        self.turned = time.monotonic()

    def start(self) -> None:
        """Begin to tick on the running loop."""
        self.turned = time.monotonic()
        call_later(TICK, self._tick)

    def look(self) -> float:
        """Count what was lost since the last look, on the loop; return the new sum."""
        now = time.monotonic()
        late = now - self.turned - TICK
        self.turned = now
        if late > SLACK:
            self.lost += late
        return self.lost

    def now(self) -> float:
        """For how many seconds the loop has been late by now; from any thread."""
        return max(0.0, time.monotonic() - self.turned - TICK)

    def _tick(self) -> None:
        self.look()
        call_later(TICK, self._tick)


def lag_of(loop: asyncio.AbstractEventLoop) -> LoopLag | None:
    """Return the lag meter of a loop, or None if the loop is not measured."""
    found = getattr(loop, "lag", None)
    return found if isinstance(found, LoopLag) else None
