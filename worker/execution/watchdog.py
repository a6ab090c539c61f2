"""Watches over the event loop from a thread of its own, and ends the process if it does not turn.

What blocks the loop holds up every item of the process, and nothing on the loop can tell: no
deadline fires, no cancellation arrives, while the leases go on. So this is no part of the loop.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Final, NoReturn

from batchord.chains.composition.step import Step
from batchord.chains.runtime.background import call_soon_threadsafe
from batchord.chains.runtime.item_context import ItemContext, place_of, run_of
from batchord.chains.runtime.loop_lag import LoopLag
from batchord.chains.runtime.loop_thread import LoopThread
from batchord.chains.runtime.shared_loop import running_code
from batchord.worker.execution.resilient_threads import survives

logger = logging.getLogger(__name__)

#: With what a process exits whose event loop does not turn any more.
EXIT_CODE: Final = 70
#: Seconds between two looks.
LOOK: Final = 0.2
#: Seconds that the loop may be late before it counts as blocked.
BLOCKED: Final = 0.5
#: Seconds between two looks from which on the whole process stood still.
FROZEN: Final = 2.0
#: Functions of the blocking code that are logged, the innermost first.
FUNCTIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Blocked:
    """The code that blocks the loop's thread; names only, nothing of an input."""

    run: ItemContext | None
    step: str
    functions: str

    def __str__(self) -> str:
        item = self.run.name if self.run is not None else "no item is known"
        step = f" step={self.step}" if self.step else ""
        return f"{item}{step} in {self.functions}"


class Watchdog:
    """A thread that measures the event loop's lag and finds the code that blocks it.

    Calls `on_dead` once the loop has not turned for `limit` seconds in which this thread could
    run: a process that stood still as a whole is not blocked.
    """

    def __init__(
        self, loop: LoopThread, *, limit: float, on_dead: Callable[[Blocked | None], object]
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._on_dead = on_dead
        self.lag = LoopLag()
        #: What blocks the loop now, since when, and for how long this thread has seen it.
        self._blocked: Blocked | None = None
        self._since = 0.0
        self._seen = 0.0
        self._last = 0.0

    def start(self) -> None:
        """Begin, until the loop is stopped by its owner, as when the process ends."""
        loop = self._loop.loop
        loop.lag = self.lag
        call_soon_threadsafe(loop, self.lag.start)
        self._last = time.monotonic()
        threading.Thread(
            target=self._watch, args=[self._loop.thread], name="watchdog", daemon=True
        ).start()

    def _watch(self, thread: threading.Thread | None) -> None:
        while thread is not None and self._loop.thread is thread:
            time.sleep(LOOK)
            survives("watchdog", partial(self._look, thread))

    def _look(self, thread: threading.Thread) -> None:
        now = time.monotonic()
        passed, self._last = now - self._last, now
        if passed > FROZEN:
            logger.warning("the process stood still for %.1f s: no item is charged with it", passed)
        alive = thread.is_alive()
        # In this order: the owner forgets the thread before it ends it.
        if self._loop.thread is not thread:
            return
        if not alive:
            self._on_dead(None)
            return
        if self.lag.now() < BLOCKED:
            self._turns_again()
            return
        if not self._seen:
            self._since = self.lag.turned
        # What this thread missed itself is nobody's.
        seen = min(passed, FROZEN)
        self._seen += seen
        self._blocked = _blocked_by(thread) or self._blocked
        if self._blocked is not None and self._blocked.run is not None:
            self._blocked.run.blocked += seen if self._seen > seen else BLOCKED
        if self._seen >= self._limit:
            self._on_dead(self._blocked)

    @property
    def blocked(self) -> Blocked | None:
        """The code that blocks the loop now, as far as it is known."""
        return self._blocked

    def _turns_again(self) -> None:
        if self._blocked is not None:
            logger.warning(
                "event loop blocked for %.1f s by %s: everything else waited; make it a plain def, "
                "which runs in a thread",
                self.lag.turned - self._since,
                self._blocked,
            )
        self._blocked, self._seen = None, 0.0


def _blocked_by(thread: threading.Thread) -> Blocked | None:
    """Return the code that the loop's thread runs now; None if it runs no item's code."""
    context, frames = running_code(sys._current_frames().get(thread.ident or 0))
    if context is None:
        return None
    steps = [
        owner.name
        for frame in frames
        if frame.f_code.co_name == "_run" and isinstance(owner := frame.f_locals.get("self"), Step)
    ]
    step = ".".join([*place_of(context), *steps[:1]])
    names = [_name(frame) for frame in frames[:FUNCTIONS]]
    return Blocked(run_of(context), step, " < ".join(names))


def _name(frame: FrameType) -> str:
    module = frame.f_globals.get("__name__", "?")
    return f"{module}.{frame.f_code.co_qualname}"


def exit_now() -> NoReturn:
    """End the process, whatever runs in it."""
    os._exit(EXIT_CODE)
