"""Circuit breakers: whether a provider is down, by what all calls of the same target meet.

A target is one model behind one address and one key. While its breaker is open nobody calls it, but
for one call at a time, the probe, over all workers.
"""

import asyncio
import logging
import math
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from batchord.chains.runtime.background import spawn

logger = logging.getLogger(__name__)

#: Failures in a row, of all workers together, that open the breaker of a target.
TRIP: Final = 5
#: Seconds until the first probe; the wait doubles with each probe that fails ...
FIRST_WAIT: Final = 0.5
#: ... up to this, which also bounds how late the end of an outage is noticed.
LONGEST_WAIT: Final = 3.0
#: Seconds that a probe may take before another one is made beside it.
PROBE_LEASE: Final = 6.0
#: Seconds between two looks at what other workers have met.
HEAR: Final = 1.0
#: Seconds of an outage that says nothing of how much the provider bears.
MOMENT: Final = 2.0
#: Seconds after which a failure is of another row.
APART: Final = 60.0
#: Seconds for which an outage is borne, if no setting says otherwise.
DEFAULT_PATIENCE: Final = 3600.0
PATIENCE_VARIABLE: Final = "BATCHORD_OUTAGE_PATIENCE"

#: Codes of errors that a provider which is down gives.
OUTAGE_CODES: Final = frozenset({"connection_error", "timeout", "server_error", "rate_limited"})

What = Literal["look", "failed", "failed-probe", "probe"]

_patience: ContextVar[float | None] = ContextVar("batchord_outage_patience", default=None)


def current_patience() -> float:
    """Seconds for which the running code bears an outage; 0: failures are the item's at once."""
    given = _patience.get()
    if given is not None:
        return given
    try:
        return max(0.0, float(os.environ.get(PATIENCE_VARIABLE) or DEFAULT_PATIENCE))
    except ValueError:
        return DEFAULT_PATIENCE


@contextmanager
def patience(seconds: float | None) -> Iterator[None]:
    """Bear outages for so long in the code inside; None: as long as the environment says."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


class Event(NamedTuple):
    """An event that a process reports to a breaker's record; all times are seconds."""

    what: What = "look"
    #: Since when the successful call began that began last, and since when the last one ended; -1:
    #: never.
    begun: float = -1.0
    done: float = -1.0
    #: Whose failure it is: a repeated one counts once. Empty: each counts.
    who: str = ""
    #: Failures in a row that open the breaker; 0: none do.
    trip: int = 0
    #: The wait for the first probe.
    wait: float = 0.0


class Health(NamedTuple):
    """The state of a breaker's record; all times are seconds."""

    open: bool = False
    #: Failures in a row.
    streak: int = 0
    #: Since the first of them; -1: none.
    failing: float = -1.0
    #: Since the successful call began that began last; -1: never.
    begun: float = -1.0
    #: Until a probe may be made.
    left: float = 0.0
    #: The asker may make one now.
    probe: bool = False
    #: Since it was open last, and since it was open last and a probe has failed; -1: never.
    closed: float = -1.0
    down: float = -1.0


@dataclass(slots=True)
class HealthRecord:
    """A breaker's record in this process; `breaker.lua` has it for all workers."""

    clock: Callable[[], float]
    #: When the first failure of the row was; -1: nothing fails.
    since: float = -1.0
    #: When the last one was.
    last: float = 0.0
    streak: int = 0
    seen: frozenset[str] = frozenset()
    begun: float = 0.0
    done: float = 0.0
    until: float = 0.0
    level: int = 0
    probe: float = 0.0
    #: When it was open last, and when it was so and a probe had failed.
    closed: float = -1.0
    down: float = -1.0

    def take(self, event: Event) -> Health:
        """Note what has happened and say what is known."""
        now = self.clock()
        self.begun = max(self.begun, now - event.begun if event.begun >= 0 else 0.0)
        self.done = max(self.done, now - event.done if event.done >= 0 else 0.0)
        apart = not self.level and now - self.last > APART
        if self.since >= 0 and (apart or (self.begun if self.level else self.done) > self.since):
            self.closed = now if self.level > 0 else self.closed
            self.down = now if self.level > 1 else self.down
            self.since, self.streak, self.seen = -1.0, 0, frozenset()
            self.until, self.level, self.probe = 0.0, 0, 0.0
        if event.what in ("failed", "failed-probe"):
            self._failed(event, now)
        granted = event.what == "probe" and self.level > 0 and max(self.until, self.probe) <= now
        if granted:
            self.probe = now + PROBE_LEASE
        return Health(
            self.level > 0,
            self.streak,
            now - self.since if self.since >= 0 else -1.0,
            now - self.begun if self.begun else -1.0,
            0.0 if granted else max(0.0, max(self.until, self.probe) - now),
            granted,
            now - self.closed if self.closed >= 0 else -1.0,
            now - self.down if self.down >= 0 else -1.0,
        )

    def _failed(self, event: Event, now: float) -> None:
        self.since, self.last = self.since if self.since >= 0 else now, now
        if not event.who or event.who not in self.seen:
            self.streak += 1
            self.seen |= {event.who}
        if self.level and event.what == "failed-probe":
            self.level, self.probe = self.level + 1, 0.0
            self.until = now + min(LONGEST_WAIT, event.wait * 2.0 ** min(self.level - 1, 30))
        elif not self.level and 0 < event.trip <= self.streak:
            self.level, self.until = 1, now + event.wait


class Records(Protocol):
    """Keeps the records of breakers, by name."""

    async def health(self, name: str, event: Event) -> Health:
        """Note what has happened and say what is known, in one step."""
        ...


class Breaker:
    """The breaker of one target, as one event loop sees it."""

    def __init__(self, records: Records, name: str) -> None:
        self.name = name
        self._records = records
        self._health = Health()
        #: By the loop's clock: when the record was asked, and the last success began and ended.
        self._asked = self._begun = self._done = -math.inf
        self._telling: asyncio.Task[None] | None = None
        #: Outages that have ended, of more than a moment.
        self.outages = 0
        #: The provider's last words while it fails, and the code of that error.
        self.words = self.code = ""
        #: Held while it is probed before the breaker is open.
        self.one_probe = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the target is down, as far as this process has heard."""
        return self._health.open

    @property
    def has_answered(self) -> bool:
        """Whether the target has ever answered a call of this process."""
        return self._done > -math.inf

    @property
    def answered_at(self) -> float:
        """When it has answered a call of this process last, by the loop's clock."""
        return self._done

    @property
    def is_silent(self) -> bool:
        """Whether it failed last, and not as there were too many calls."""
        return self.code not in ("", "rate_limited")

    @property
    def left(self) -> float:
        """Seconds until a probe may be made, as far as this process has heard."""
        return max(0.0, self._health.left - self.heard_ago)

    def was_open(self, seconds: float, *, long: bool = False) -> bool:
        """Whether it was open in the last `seconds`; `long`: and a probe has failed then."""
        ago = self._health.down if long else self._health.closed
        return self.is_open or 0 <= ago < seconds - self.heard_ago

    @property
    def heard_ago(self) -> float:
        """Seconds since this process has asked what all workers have met."""
        return _now() - self._asked

    def answered(self, began: float) -> None:
        """Record that the target answered a call that began at `began`, by the loop's clock."""
        now = _now()
        self._begun, self._done = max(self._begun, began), now
        if (self._health.streak or now - self._asked > HEAR) and self._telling is None:
            self._telling = spawn(self._tell())

    async def failed(self, *, probe: bool) -> Health:
        """Record a failure that looks like an outage, and return the target's health."""
        wait = FIRST_WAIT * random.uniform(0.7, 1.0)
        what: What = "failed-probe" if probe else "failed"
        return await self._ask(Event(what, trip=TRIP, wait=wait))

    async def look(self) -> Health:
        """Return what all workers have met."""
        return await self._ask(Event())

    async def may_probe(self) -> Health:
        """Ask for the probe; the caller makes it if the answer says so, or finds it closed."""
        return await self._ask(Event("probe"))

    async def _tell(self) -> None:
        try:
            await self._ask(Event())
        finally:
            self._telling = None

    async def _ask(self, event: Event) -> Health:
        now = _now()
        begun = now - self._begun if self.has_answered else -1.0
        done = now - self._done if self.has_answered else -1.0
        was_open, lasted = self.is_open, self._health.failing + self.heard_ago
        self._asked = now
        health = await self._records.health(self.name, event._replace(begun=begun, done=done))
        self._asked, self._health = _now(), health
        if health.open and not was_open:
            logger.warning("provider down target=%s: its calls wait", self.name)
        elif was_open and not health.open:
            self.outages += lasted > MOMENT
            logger.warning("provider is back target=%s", self.name)
        return health


def _now() -> float:
    return asyncio.get_running_loop().time()
