"""The deadline of one item's attempt."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

from batchord.chains.runtime.background import call_at
from batchord.chains.runtime.item_context import current_run
from batchord.chains.runtime.loop_lag import lag_of

_current: ContextVar["Deadline | None"] = ContextVar("batchord_deadline", default=None)


def current_deadline() -> "Deadline | None":
    """Return the deadline of the current item, or None."""
    return _current.get()


class Deadline:
    """`asyncio.timeout`, which stands still while a call of the item waits for a rate limit.

    With parallel branches, it stands still while any of them waits. Time in which the loop could
    run nothing does not count either, where that is measured (`loop_lag`), unless it was the
    item's own code that blocked it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._token: Token[Deadline | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._run = current_run()
        self._lost_before = 0.0
        self._waiting = 0
        self._left: float | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._token = _current.set(self)
        self._arm(self._seconds)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop = None
        self._disarm()
        if self._token is not None:
            _current.reset(self._token)
        await self._timeout.__aexit__(kind, error, trace)

    def expired(self) -> bool:
        """Whether the time was over before the item was done."""
        return self._timeout.expired()

    @property
    def left(self) -> float | None:
        """Seconds until it is over, also while it stands still; None if it is not running."""
        if self._left is not None or self._timer is None:
            return self._left
        return max(0.0, self._unused(self._timer))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let no time pass meanwhile."""
        self._waiting += 1
        if self._waiting == 1 and self._movable():
            self._left = self._disarm()
        try:
            yield
        finally:
            self._waiting -= 1
            if self._waiting == 0 and self._left is not None:
                left, self._left = self._left, None
                if self._movable():
                    self._arm(left)

    def _arm(self, seconds: float) -> None:
        self._lost_before = self._lost()
        when = asyncio.get_running_loop().time() + seconds
        self._timer = call_at(when, self._due)

    def _disarm(self) -> float | None:
        """Stop the timer; return the seconds that were left, None if it did not run."""
        timer, self._timer = self._timer, None
        if timer is None:
            return None
        timer.cancel()
        return self._unused(timer)

    def _unused(self, timer: asyncio.TimerHandle) -> float:
        """Seconds until the timer is due, with those that others have taken from the item."""
        taken = self._lost() - self._lost_before
        return timer.when() + taken - asyncio.get_running_loop().time()

    def _due(self) -> None:
        left = self._disarm() or 0.0
        if left > 0:
            # The time of others, or of nobody: the process stood still.
            self._arm(left)
        else:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def _lost(self) -> float:
        """Seconds in which nothing could run so far, but for those that the item itself took."""
        lag = lag_of(asyncio.get_running_loop())
        if lag is None:
            return 0.0
        return lag.look() - (0.0 if self._run is None else self._run.blocked)

    def _movable(self) -> bool:
        """Return whether it can be moved: it is not over, and this is its own loop.

        A sync step may run a loop in a thread of its own.
        """
        return (
            self._loop is not None
            and self._loop is asyncio.get_running_loop()
            and not self._timeout.expired()
        )


@contextmanager
def all_paused(deadlines: Iterable[Deadline | None]) -> Iterator[None]:
    """Pause each of the deadlines."""
    with ExitStack() as stack:
        for deadline in deadlines:
            if deadline is not None:
                stack.enter_context(deadline.paused())
        yield
