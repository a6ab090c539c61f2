"""The deadline of one item's attempt."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

_current: ContextVar["Deadline | None"] = ContextVar("batchord_deadline", default=None)


def current_deadline() -> "Deadline | None":
    """The deadline of the item that this code runs for, or None."""
    return _current.get()


class Deadline:
    """`asyncio.timeout`, which stands still while a call of the item waits for a rate limit.

    With parallel branches, it stands still while any of them waits.
    """

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._token: Token[Deadline | None] | None = None
        self._waiting = 0
        self._left: float | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._token = _current.set(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop = None
        if self._token is not None:
            _current.reset(self._token)
        await self._timeout.__aexit__(kind, error, trace)

    def expired(self) -> bool:
        """Whether the time was over before the item was done."""
        return self._timeout.expired()

    @property
    def left(self) -> float | None:
        """Seconds until it is over, also while it stands still; None if it is not running."""
        if self._left is not None or self._loop is None:
            return self._left
        when = self._timeout.when()
        return None if when is None else max(0.0, when - self._loop.time())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let no time pass meanwhile."""
        self._waiting += 1
        when = self._timeout.when() if self._waiting == 1 and self._movable() else None
        if when is not None:
            self._left = when - asyncio.get_running_loop().time()
            self._timeout.reschedule(None)
        try:
            yield
        finally:
            self._waiting -= 1
            if self._waiting == 0 and self._left is not None:
                left, self._left = self._left, None
                if self._movable():
                    self._timeout.reschedule(asyncio.get_running_loop().time() + left)

    def _movable(self) -> bool:
        """Not if it is over, nor from the loop of another thread, as a sync step may have."""
        return (
            self._loop is not None
            and self._loop is asyncio.get_running_loop()
            and not self._timeout.expired()
        )


@contextmanager
def all_paused(deadlines: Iterable[Deadline | None]) -> Iterator[None]:
    """Pause each of them."""
    with ExitStack() as stack:
        for deadline in deadlines:
            if deadline is not None:
                stack.enter_context(deadline.paused())
        yield
