"""How many calls of one process are in flight: few at first, and fewer when they become slow."""

import math
import random
from dataclasses import dataclass, field
from typing import Final

from batchord.chains.ratelimit.found_limits import DECREASE, HOLD, INCREASE, RAMP, START, Bound

_MOST_DOUBLINGS: Final = 30
#: Seconds without calls after a refusal that does not say for how long; they double with each
#: further one that no answer came between.
PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 15.0
#: Calls that were begun one after the other, and how many of their answers tell their median.
COHORT: Final = 21
HALF: Final = COHORT // 2 + 1
#: Calls are slow if their median is SLOW times the usual one ...
SLOW: Final = 4.0
#: ... and SLOW_SECONDS longer, once KNOWN cohorts are known.
SLOW_SECONDS: Final = 2.0
KNOWN: Final = 3
#: What they are then thought to take usually: it may just be other work.
ACCEPTED: Final = 1.2

_NEWS: Final = 0.05


@dataclass(eq=False, slots=True)
class Cohort:
    """Calls grouped by the order in which they began.

    The last calls to end are always the slowest ones: grouped by their ends, they would bias the
    median upwards.
    """

    begun: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Begun:
    """A call that has begun."""

    cohort: Cohort
    at: float
    #: Calls in flight as it began, itself included.
    level: int


class Adaptive:
    """The bound of one process's calls under one limit, from what its calls meet.

    What refusals tell is shared with all processes, in `found_limits`.
    """

    def __init__(self) -> None:
        self._flight = Bound()
        #: When the calls in flight began to double; None: not yet.
        self._ramp: float | None = None
        self._pauses = 0
        self._refused_at = -math.inf
        self._cohort = Cohort()
        self._known = 0
        #: Seconds that a call takes, by the medians of cohorts.
        self._usual = 0.0
        #: Until then a decrease has not shown yet.
        self._settling = 0.0

    def allowed(self, now: float) -> float:
        """How many calls may be in flight."""
        if self._ramp is None:
            return min(START, self._flight.value)
        doublings: float = min(_MOST_DOUBLINGS, (now - self._ramp) / RAMP)
        most: float = START * 2.0**doublings
        return min(most, self._flight.value)

    def opens(self, now: float) -> float:
        """When more calls may be allowed than now, if none ends; inf: not by itself."""
        if self._ramp is None or self.allowed(now) >= self._flight.value:
            return math.inf
        # Later than now, however the sum is rounded.
        further = math.floor(self.allowed(now)) + 1
        return max(now + RAMP / 100, self._ramp + RAMP * math.log2(further / START))

    def begin(self, now: float, in_flight: int) -> Begun:
        """Count a call that begins, one of `in_flight` calls."""
        if self._ramp is None:
            self._ramp = now
        if self._cohort.begun == COHORT:
            self._cohort = Cohort()
        self._cohort.begun += 1
        return Begun(self._cohort, now, in_flight)

    def restart(self, now: float) -> None:
        """Begin with few calls again, as after an outage."""
        self._ramp, self._pauses = now, 0

    def answered(self, call: Begun, now: float) -> None:
        """Record that a call was answered."""
        self._pauses = 0
        call.cohort.seconds.append(now - call.at)
        if len(call.cohort.seconds) == HALF and self._is_slow(max(call.cohort.seconds)):
            if self._slow_down(now, call.level):
                self._usual *= ACCEPTED
            return
        if call.at <= self._refused_at:
            return
        if call.level >= self._flight.value - 1:
            # Not if it is not used up: whether more would be borne is unknown.
            step = max(1.0, INCREASE * self._flight.value)
            self._flight.answered(1, self._flight.value, step, HOLD * step)

    def refused(self, call: Begun, now: float) -> float:
        """Record that a call was refused for too many calls; return the seconds to make no calls.

        The seconds count if the provider does not say. Refusals of calls that began before the last
        refusal are about the same moment.
        """
        if call.at <= self._refused_at:
            return 0.0
        self._refused_at = now
        self._pauses += 1
        longest = min(LONGEST_PAUSE, PAUSE * 2.0 ** min(self._pauses - 1, 10))
        return longest * random.uniform(0.7, 1.0)

    def _is_slow(self, median: float) -> bool:
        slow = median > max(SLOW * self._usual, self._usual + SLOW_SECONDS)
        if slow and self._known >= KNOWN:
            return True
        self._known += 1
        self._usual += max(_NEWS, 1 / self._known) * (median - self._usual)
        return False

    def _slow_down(self, now: float, in_flight: int) -> bool:
        """Lower the bound as calls have become slow; False if it was lowered just before."""
        if now < self._settling:
            return False
        self._settling = now + max(self._usual, 0.1)
        self._flight.lower(max(1.0, DECREASE * min(self._flight.value, in_flight)))
        self._flight.growing = True  # with each round of answers
        return True
