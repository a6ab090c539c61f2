"""The limiter of all workers: what is used of each rate limit, counted in Redis."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from batchord.chains.ratelimit.circuit_breaker import LONGEST_WAIT, PROBE_LEASE, Event, Health
from batchord.chains.ratelimit.limits import (
    BURST,
    MOST_AHEAD,
    POLL,
    REACH,
    RateLimit,
    ReserveAnswer,
    ReserveRequest,
)
from batchord.ledger.errors import LedgerUnavailable
from batchord.ledger.storage.batch_store import BatchStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds for which one who has asked in vain for a place in flight counts as waiting for it.
HUNGRY: Final = 3 * POLL
#: Seconds until the ledger is asked again that could not be reached.
PAUSE: Final = 1.0


class LedgerLimiter:
    """Counts for all processes on one ledger; the clock is the server's.

    One thread talks to Redis, so that a server that stalls does not stall what is in flight. While
    it cannot be reached, calls wait.
    """

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self.lease = store.settings.lease
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="limits")

    async def reserve(self, limit: RateLimit, asked: ReserveRequest) -> ReserveAnswer:
        answer: list[Any] = await self._patiently(lambda: self._reserve(limit, asked))
        era, cooling, started, again, *waits = map(int, answer)
        return ReserveAnswer(
            era, cooling / 1e6, started, [wait / 1e6 for wait in waits], again / 1e6
        )

    async def cool_down(self, limit: RateLimit, seconds: float) -> None:
        key = self._store.keys.rates(limit.key)
        await self._patiently(lambda: self._store.run("cool_down", [key], int(seconds * 1e6)))

    async def health(self, name: str, event: Event) -> Health:
        key = self._store.keys.health(name)
        times = (event.wait, LONGEST_WAIT, PROBE_LEASE)
        args = (
            *(event.what, *map(_us, (event.begun, event.done)), event.who, event.trip),
            *map(_us, times),
        )
        answer: list[Any] = await self._patiently(lambda: self._store.run("breaker", [key], *args))
        is_open, streak, failing, begun, left, probe, closed, down = map(int, answer)
        return Health(
            *(is_open == 1, streak, _seconds(failing), _seconds(begun), left / 1e6, probe == 1),
            *(_seconds(closed), _seconds(down)),
        )

    def _reserve(self, limit: RateLimit, asked: ReserveRequest) -> Any:
        keys = self._store.keys
        times = (BURST, REACH, MOST_AHEAD, POLL, HUNGRY, self.lease)
        return self._store.run(
            "limit",
            [keys.rates(limit.key), keys.places(limit.key)],
            *(limit.rpm or 0, limit.tpm or 0, limit.concurrency or 0),
            *(asked.holder, asked.held, asked.correction),
            *(asked.era, asked.due, asked.pending),
            *(int(seconds * 1e6) for seconds in times),
            *asked.tokens,
        )

    async def _patiently(self, call: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await loop.run_in_executor(self._thread, call)
            except LedgerUnavailable as error:
                logger.warning("rate limits wait for the ledger: %s", error)
            await asyncio.sleep(PAUSE)


def _us(seconds: float) -> int:
    """Microseconds; -1 stands for never."""
    return int(seconds * 1e6) if seconds >= 0 else -1


def _seconds(us: int) -> float:
    return us / 1e6 if us >= 0 else -1.0
