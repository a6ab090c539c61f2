"""Run a client's blocking calls in threads of its own, and share one listener between its waits."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, cast

from batchord.ledger.storage.batch_reader import BatchReader
from batchord.producer.event_listener import EventListener

#: Threads for short calls. The event loop's default executor is the application's: name look-ups
#: go through it, and a Redis that is silent must not hold them up.
_THREADS: Final = 4

P = ParamSpec("P")
T = TypeVar("T")


class AsyncEdge:
    """Run blocking calls beside the caller's event loop, and wait for events of batches.

    Threads start at the first use, and afresh in a forked child. Safe to use from several event
    loops at once.
    """

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._pid = 0
        self._threads: ThreadPoolExecutor | None = None
        self._listener: EventListener | None = None

    async def call(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread. Cancelling ends the wait for it at once."""
        threads, _ = self._started()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, partial(func, *args, **kwargs))

    async def wait_event(self, batch_id: str, after: str, timeout: float) -> None:
        """Return when the batch has an event behind `after`, or after `timeout` or a few seconds.

        Raises:
            LedgerUnavailable: the listener cannot read from Redis.
        """
        _, listener = self._started()
        await listener.wait(batch_id, after, timeout)

    def close(self) -> None:
        """End the threads; a later call starts others."""
        with self._lock:
            threads, self._threads, self._listener = self._threads, None, None
        if threads is not None and self._pid == os.getpid():
            threads.shutdown(wait=False)

    def _started(self) -> tuple[ThreadPoolExecutor, EventListener]:
        if self._pid != os.getpid():
            # A lock may have been held when the process was forked, and threads are not inherited.
            self._lock = threading.Lock()
            self._threads = self._listener = None
            self._pid = os.getpid()
        with self._lock:
            if self._threads is None or self._listener is None:
                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="batchord-client")
                self._listener = EventListener(self._reader)
            return self._threads, self._listener


class _HasEdge(Protocol):
    @property
    def _edge(self) -> AsyncEdge: ...


S = TypeVar("S", bound=_HasEdge)


def async_form(
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Return the async form of a blocking method: `apause = async_form(pause)`.

    The method runs in a thread of the object's `AsyncEdge`.
    """

    @wraps(method)
    async def call(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        value: T = await self._edge.call(getattr(self, method.__name__), *args, **kwargs)
        return value

    call.__name__ = f"a{method.__name__}"
    call.__qualname__ = method.__qualname__.replace(method.__name__, call.__name__)
    call.__doc__ = f"Await `{method.__name__}`, which does not block the event loop."
    return cast(Callable[Concatenate[S, P], Coroutine[Any, Any, T]], call)
