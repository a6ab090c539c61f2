"""Bounds of concurrency: the gate of a batch, and the calls that are in flight.

A batch with `max_concurrency` N has one gate of N permits. A step that does work of its own holds
one while it works; a sequence or a parallel holds none. So N bounds the calls, not only the inputs.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: The permits of the batch that this code runs in; None if nothing bounds it.
_gate: ContextVar[asyncio.Semaphore | None] = ContextVar("batchord_gate", default=None)


def current_gate() -> asyncio.Semaphore | None:
    """Return the gate that bounds calls from the current context, or None."""
    return _gate.get()


def gated_context(limit: int | None) -> Context:
    """Copy the current context and bound its calls by `limit` (None: not bounded)."""
    context = copy_context()
    context.run(_gate.set, None if limit is None else asyncio.Semaphore(limit))
    return context


@asynccontextmanager
async def permit() -> AsyncIterator[None]:
    """Hold one of the batch's permits.

    What is called while it is held needs none: a step that runs another chain inside would
    otherwise wait for a permit that only it can give back.
    """
    gate = _gate.get()
    if gate is None:
        yield
        return
    async with gate:
        token = _gate.set(None)
        try:
            yield
        finally:
            _gate.reset(token)


@dataclass(frozen=True, slots=True)
class Ended(Generic[T]):
    """How one call ended: with `value`, or with `error` if that is not None."""

    index: int
    value: T | None = None
    error: BaseException | None = None


async def as_ended(
    calls: Iterator[Callable[[], Awaitable[T]]],
    *,
    context: Context | None = None,
    limit: int | None = None,
    stops: Callable[[BaseException], bool],
) -> AsyncGenerator[Ended[T], None]:
    """Run the calls, at most `limit` at once, and yield each as it ends, also if by an error.

    Each call runs in a copy of `context` (None: the current one).
    After an error for which `stops` is true nothing new is started. Closing the generator, or
    cancelling the task that iterates over it, cancels what still runs and waits until it ended.
    """
    flight = _Flight(calls, context=context or copy_context(), limit=limit, stops=stops)
    try:
        flight.fill()
        while not flight.finished:
            yield await flight.ended.get()
    finally:
        await flight.abandon()


class _Flight(Generic[T]):
    """The calls that are in flight, each in a task and a context of its own."""

    def __init__(
        self,
        calls: Iterator[Callable[[], Awaitable[T]]],
        *,
        context: Context,
        limit: int | None,
        stops: Callable[[BaseException], bool],
    ) -> None:
        self.ended: asyncio.Queue[Ended[T]] = asyncio.Queue()
        self._calls = enumerate(calls)
        self._context = context
        self._limit = limit
        self._stops = stops
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def finished(self) -> bool:
        return not self._tasks and self.ended.empty()

    def fill(self) -> None:
        """Start calls until the limit is reached or none is left."""
        while not self._closed and (self._limit is None or len(self._tasks) < self._limit):
            following = next(self._calls, None)
            if following is None:
                self._closed = True
                return
            # A context of its own: what one call sets there, no other call sees.
            task: asyncio.Task[None] = asyncio.create_task(
                self._carry_out(*following), context=self._context.copy()
            )
            self._tasks.add(task)

    async def _carry_out(self, index: int, call: Callable[[], Awaitable[T]]) -> None:
        try:
            ended = Ended(index, value=await call())
        except BaseException as error:  # noqa: BLE001
            # Also SystemExit and KeyboardInterrupt: one that leaves a task stops the event loop.
            ended = Ended(index, error=error)
            if self._stops(error):
                self._closed = True
        current: Any = asyncio.current_task()
        self._tasks.discard(current)
        self.ended.put_nowait(ended)
        # Refilled here and not by who iterates: a slow reader must not hold up the work.
        self.fill()

    async def abandon(self) -> None:
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
