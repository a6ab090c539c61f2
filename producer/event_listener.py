"""Wake coroutines that wait for events of batches: one thread and one connection for all."""

import asyncio
import threading
import time
from typing import Final, NamedTuple

from batchord.chains.errors import BatchordError
from batchord.ledger.errors import UnreadableBatch
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.event_reader import WAIT_STEP, stream_place

#: Longest time in seconds until the thread sees a waiter that has joined while it listens.
_JOIN: Final = 0.2
#: Seconds between two looks: a busy batch has events by the thousand a second.
_PAUSE: Final = 0.02


class _Waiter(NamedTuple):
    batch_id: str
    after: str
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[None]"

    def wake(self, error: BaseException | None = None) -> None:
        """Resolve the future on its loop; a loop that is closed by now has nobody to wake."""
        try:
            self.loop.call_soon_threadsafe(self._resolve, error)
        except RuntimeError:
            return

    def _resolve(self, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class EventListener:
    """Listen to the event streams of all batches that coroutines wait for.

    The thread runs while there are waiters, and ends with the last one.
    """

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._waiters: set[_Waiter] = set()
        self._running = False

    async def wait(self, batch_id: str, after: str, timeout: float) -> None:
        """Return when the batch has an event behind `after`, or after `timeout` or a few seconds.

        Raises:
            LedgerUnavailable: Redis cannot be read; the next wait tries again.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(batch_id, after, loop, loop.create_future())
        self._add(waiter)
        try:
            async with asyncio.timeout(min(timeout, WAIT_STEP)):
                await waiter.future
        except TimeoutError:
            return
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def _add(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.add(waiter)
            if not self._running:
                self._running = True
                threading.Thread(target=self._listen, name="batchord-events", daemon=True).start()

    def _listen(self) -> None:
        idle_until = time.monotonic() + WAIT_STEP
        while True:
            with self._lock:
                waiters = list(self._waiters)
                if not waiters and time.monotonic() > idle_until:
                    self._running = False
                    return
            if waiters:
                idle_until = time.monotonic() + WAIT_STEP
                self._serve(waiters)
            time.sleep(_PAUSE)

    def _serve(self, waiters: list[_Waiter]) -> None:
        """Read once from the streams of all waiters, and wake those who have an event."""
        earliest: dict[str, str] = {}
        for waiter in waiters:
            known = earliest.setdefault(waiter.batch_id, waiter.after)
            if stream_place(waiter.after) < stream_place(known):
                earliest[waiter.batch_id] = waiter.after
        try:
            news = self._reader.wait_events(earliest, _JOIN)
        except UnreadableBatch as error:
            # It is damaged; who waits for another one goes on to wait.
            for waiter in waiters:
                if waiter.batch_id == error.batch_id:
                    waiter.wake(error)
            return
        except BatchordError as error:
            for waiter in waiters:
                waiter.wake(error)
            return
        for waiter in waiters:
            latest = news.get(waiter.batch_id)
            if latest is not None and stream_place(latest) > stream_place(waiter.after):
                waiter.wake()
