"""Rate limits of a provider: how many calls, tokens and calls in flight, and who counts them.

A limit is kept by a `Limiter`. In this process it is `LocalLimiter`; a worker installs the
ledger's, which counts for all workers. `ratelimit.admission_queue` has the calls that wait.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from batchord.chains.ratelimit.circuit_breaker import Event, Health, HealthRecord
from batchord.chains.ratelimit.found_limits import FoundLimits, News

#: Seconds' worth of calls and of tokens that may go at once after a pause: 1% of a minute.
BURST: Final = 0.6
#: Seconds ahead for which one who waits gets any number of places in time ...
REACH: Final = 0.1
#: ... and up to which it gets one, so that all have their turn, and none the whole future. (Not
#: where tokens are what it waits for: those that are given back would come too late for it.)
MOST_AHEAD: Final = 60.0
#: Seconds between two requests for a place in flight: a free place is not announced.
POLL: Final = 0.1
#: Bounds of a cool-down, in seconds. After an hour a call asks whether it still holds: a date in
#: the wrong year must not stop everything for ever.
SHORTEST_COOL_DOWN: Final = 0.1
LONGEST_COOL_DOWN: Final = 3600.0

_MOST_KEY: Final = 200


@dataclass(frozen=True)
class RateLimit:
    """A provider's limits, shared by all steps and workers that name the same `key`.

    A cool-down that the provider asks for (a 429 with Retry-After) is shared too, also if no
    number is given here.
    """

    #: What is limited, as you like to call it: "openai:gpt-x".
    key: str
    #: Requests a minute.
    rpm: int | None = None
    #: Tokens a minute, of prompts and answers together.
    tpm: int | None = None
    #: Calls in flight.
    concurrency: int | None = None

    @property
    def is_free(self) -> bool:
        """Whether it has no numbers."""
        return self.rpm is None and self.tpm is None and self.concurrency is None

    def __post_init__(self) -> None:
        if not 0 < len(self.key) <= _MOST_KEY or not self.key.isprintable():
            raise ValueError(
                f"the key of a RateLimit is a text of 1 to {_MOST_KEY} printable characters, "
                'like "openai:gpt-x"'
            )
        for name in ("rpm", "tpm", "concurrency"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is a whole number, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")


def estimated_tokens(texts: Iterable[str]) -> int:
    """Tokens of the texts, as a guess that is corrected once the provider has counted them."""
    return sum(map(len, texts)) // 4 + 1


class ReserveRequest(NamedTuple):
    """A caller's request to the limiter: its counts, and the places that it needs."""

    #: Names who asks, from call to call.
    holder: str
    #: Calls in flight: an absolute number, so that a call that is repeated counts nothing twice.
    held: int
    #: Tokens that ended calls have used beyond what was reserved for them; negative: less.
    correction: int = 0
    #: The era of the places in time that are held.
    era: int = 0
    #: Places in time that have come, and those that have not.
    due: int = 0
    pending: int = 0
    #: For each further call, the tokens that it is expected to use.
    tokens: Sequence[int] = ()
    #: What calls have met.
    news: News = News()


class ReserveAnswer(NamedTuple):
    """The limiter's answer; all times are seconds from now."""

    #: Places in time of another era are void.
    era: int
    #: How long no call may be made at all.
    cooling: float = 0.0
    #: How many of the due calls may be made.
    started: int = 0
    #: For the first of the further calls: when its place in time comes. 0: it may be made now.
    waits: Sequence[float] = ()
    #: For one who has got nothing and holds no place in time: when it makes sense to ask again.
    again: float = 0.0
    #: Calls in flight, of all processes, and how many may be; inf: any number.
    flying: int = 0
    bound: float = math.inf


class Limiter(Protocol):
    """Counts what is used of limits."""

    #: Seconds for which calls in flight are believed without news of their process.
    lease: float

    async def reserve(self, limit: RateLimit, asked: ReserveRequest) -> ReserveAnswer:
        """Settle what has ended and reserve for what is next, in one step.

        With nothing that is asked for it only settles, and renews the lease of what is in flight.
        """
        ...

    async def cool_down(self, limit: RateLimit, seconds: float) -> None:
        """Let no process call for that time; void the places in time."""
        ...

    async def health(self, name: str, event: Event) -> Health:
        """Note what has happened to a breaker's target and say what is known, in one step."""
        ...


@dataclass(slots=True)
class _Counts:
    """The counts of one key; times are those of the limiter's clock."""

    #: When all requests, and all tokens, that were reserved have been earned.
    requests: float = 0.0
    tokens: float = 0.0
    cool: float = 0.0
    era: int = 0
    #: By holder: calls in flight, and how long that is believed.
    held: dict[str, tuple[int, float]] = field(default_factory=dict)
    #: When the next call may begin by the pace that was found.
    paced: float = 0.0
    #: How many calls are borne; None: nobody has called yet.
    found: FoundLimits | None = None


class LocalLimiter:
    """Counts for this process: GCRA, as `ledger/lua/ratelimit/limit.lua` has it for all workers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.lease = 15.0
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin anew, as the child of a fork must: the lock may have been held."""
        self._lock = threading.Lock()
        self._keys: dict[str, _Counts] = {}
        self._breakers: dict[str, HealthRecord] = {}

    async def reserve(self, limit: RateLimit, asked: ReserveRequest) -> ReserveAnswer:
        with self._lock:
            return self._reserve(limit, asked, self._keys.setdefault(limit.key, _Counts()))

    async def cool_down(self, limit: RateLimit, seconds: float) -> None:
        with self._lock:
            counts = self._keys.setdefault(limit.key, _Counts())
            until = self._clock() + seconds
            if until > counts.cool:
                counts.cool, counts.era = until, counts.era + 1
                counts.requests = min(counts.requests, until)
                counts.tokens = min(counts.tokens, until)
                counts.paced = min(counts.paced, until)

    async def health(self, name: str, event: Event) -> Health:
        with self._lock:
            return self._breakers.setdefault(name, HealthRecord(self._clock)).take(event)

    def _reserve(self, limit: RateLimit, asked: ReserveRequest, counts: _Counts) -> ReserveAnswer:
        now = self._clock()
        per_request = 60 / limit.rpm if limit.rpm else 0.0
        per_token = 60 / limit.tpm if limit.tpm else 0.0
        if asked.correction > 0:
            counts.tokens = max(counts.tokens, now)
        counts.tokens += asked.correction * per_token
        flying, bound, gap = self._flying(limit, asked, counts, now)
        free = max(0, int(min(bound, asked.due + len(asked.tokens) + flying)) - flying)
        if counts.cool > now:
            return ReserveAnswer(counts.era, cooling=counts.cool - now, flying=flying, bound=bound)
        due, pending = (asked.due, asked.pending) if asked.era == counts.era else (0, 0)
        started = min(due, free)
        free -= started
        waits: list[float] = []
        again = POLL
        for tokens in asked.tokens if started == due else ():
            cost = tokens * per_token
            by_requests = max(now, counts.paced, _earliest(counts.requests, per_request))
            goes = max(by_requests, _earliest(counts.tokens, cost))
            # To the microsecond, as in Redis: sums of seconds are wrong by less.
            wait = round(goes - now, 6)
            if wait == 0 and free == 0:
                break
            if wait > REACH and goes > by_requests:
                # It comes sooner if tokens are given back: no place, and a look half-way.
                again = (wait - REACH) / 2
                break
            if wait > REACH and (pending or wait > MOST_AHEAD):
                again = wait - MOST_AHEAD
                break
            free, pending = (free - 1, pending) if wait == 0 else (free, pending + 1)
            counts.requests = max(counts.requests, goes) + per_request
            counts.tokens = max(counts.tokens, goes) + cost
            counts.paced = goes + gap if gap else counts.paced
            waits.append(wait)
        begun = started + sum(wait == 0 for wait in waits)
        counts.held[asked.holder] = asked.held + begun, now + self.lease
        again = max(again, 0.005)
        return ReserveAnswer(counts.era, 0.0, started, waits, again, flying + begun, bound)

    def _flying(
        self, limit: RateLimit, asked: ReserveRequest, counts: _Counts, now: float
    ) -> tuple[int, float, float]:
        """Return how many calls are in flight, how many may be, and seconds between two."""
        counts.held = {
            holder: (held, until)
            for holder, (held, until) in counts.held.items()
            if until > now and held > 0 and holder != asked.holder
        }
        counts.held[asked.holder] = asked.held, now + self.lease
        flying = sum(held for held, _ in counts.held.values())
        if counts.found is None:
            counts.found = FoundLimits(now)
        pause = counts.found.take(asked.news, flying, now)
        counts.paced = max(counts.paced, now + pause)
        borne = counts.found.allowed(now, ramps=limit.is_free)
        return flying, min(borne, limit.concurrency or math.inf), counts.found.gap


def _earliest(earned: float, cost: float) -> float:
    """Return when a call that costs `cost` seconds may be made; a cost above BURST is owed."""
    return earned - max(0.0, max(BURST, cost) - cost)


_local = LocalLimiter()
_limiter: Limiter = _local
os.register_at_fork(after_in_child=_local.forget)


def limiter() -> Limiter:
    """Return the limiter of this process."""
    return _limiter


def install(limiter: Limiter) -> None:
    """Make this the process's limiter; a worker does so before its first item."""
    global _limiter
    _limiter = limiter
