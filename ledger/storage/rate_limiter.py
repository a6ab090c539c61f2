"""The limiter of all workers: what is used of each rate limit, counted in Redis."""

import asyncio
import logging
import math
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
#: Seconds for which calls in flight are believed that are told of once a second.
FREE_LEASE: Final = 3.0
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
        era, cooling, started, again, flying, bound, *waits = map(int, answer)
        return ReserveAnswer(
            *(era, cooling / 1e6, started, [wait / 1e6 for wait in waits], again / 1e6),
            *(flying, math.inf if bound < 0 else bound),
        )

    async def cool_down(self, limit: RateLimit, seconds: float) -> None:
        keys, us = {"rates": self._store.keys.rates(limit.key)}, int(seconds * 1e6)
        await self._patiently(lambda: self._store.transition("cool_down", keys=keys, us=us))

    async def health(self, name: str, event: Event) -> Health:
        answer: list[Any] = await self._patiently(
            lambda: self._store.transition(
                "breaker",
                keys={"health": self._store.keys.health(name)},
                what=event.what,
                begun_us=_us(event.begun),
                done_us=_us(event.done),
                who=event.who,
                trip=event.trip,
                wait_us=_us(event.wait),
                most_us=_us(LONGEST_WAIT),
                lease_us=_us(PROBE_LEASE),
            )
        )
        is_open, streak, failing, begun, left, probe, closed, down = map(int, answer)
        return Health(
            *(is_open == 1, streak, _seconds(failing), _seconds(begun), left / 1e6, probe == 1),
            *(_seconds(closed), _seconds(down)),
        )

    def _reserve(self, limit: RateLimit, asked: ReserveRequest) -> Any:
        keys, news = self._store.keys, asked.news
        # Where nothing is counted, nobody tells what has ended.
        lease = min(FREE_LEASE, self.lease) if limit.is_free else self.lease
        return self._store.transition(
            "limit",
            keys={"rates": keys.rates(limit.key), "places": keys.places(limit.key)},
            rpm=limit.rpm or 0,
            tpm=limit.tpm or 0,
            concurrency=limit.concurrency or 0,
            holder=asked.holder,
            held=asked.held,
            correction=asked.correction,
            era=asked.era,
            due=asked.due,
            pending=asked.pending,
            burst_us=_us(BURST),
            reach_us=_us(REACH),
            most_us=_us(MOST_AHEAD),
            poll_us=_us(POLL),
            hungry_us=_us(HUNGRY),
            lease_us=_us(lease),
            ramps=int(limit.is_free),
            answered=news.answered,
            full=news.full,
            youngest_us=_us(news.youngest),
            recovered=int(news.recovered),
            refused_us=",".join(str(_us(age)) for age in news.refused),
            records=asked.tokens,
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
