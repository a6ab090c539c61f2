"""The adaptive bound (AIMD) of calls in flight, where no limit is configured."""

import math
from dataclasses import dataclass, field
from typing import Final

#: What is left of it after a refusal, and after calls have become slow.
DECREASE: Final = 0.7
#: So much of what it was at the first refusal comes back with each round of calls.
INCREASE: Final = 0.1
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


class Adaptive:
    """Additive increase, multiplicative decrease (AIMD) of one process's calls under one limit.

    No bound before there is a reason for one. One decrease for all refusals of one round of calls:
    they are about the same moment.
    """

    def __init__(self) -> None:
        self.allowed = math.inf
        self._peak = 1.0
        self._cohort = Cohort()
        self._known = 0
        #: Seconds that a call takes, by the medians of cohorts.
        self._usual = 0.0
        #: Until then a decrease has not shown yet.
        self._settling = 0.0

    def begin(self) -> Cohort:
        """Count a call that begins; pass the cohort to `answered`."""
        if self._cohort.begun == COHORT:
            self._cohort = Cohort()
        self._cohort.begun += 1
        return self._cohort

    def answered(self, cohort: Cohort, now: float, seconds: float, in_flight: int) -> None:
        """Record the seconds that a call took beside `in_flight` calls."""
        cohort.seconds.append(seconds)
        if len(cohort.seconds) == HALF and self._is_slow(max(cohort.seconds)):
            if self.decrease(now, in_flight):
                self._usual *= ACCEPTED
        elif in_flight >= self.allowed - 1:
            # Only if the bound is used up: else it is unknown whether the provider bears more.
            self.allowed += max(1.0, INCREASE * self._peak) / self.allowed

    def _is_slow(self, median: float) -> bool:
        slow = median > max(SLOW * self._usual, self._usual + SLOW_SECONDS)
        if slow and self._known >= KNOWN:
            return True
        self._known += 1
        self._usual += max(_NEWS, 1 / self._known) * (median - self._usual)
        return False

    def decrease(self, now: float, in_flight: int) -> bool:
        """Lower the bound after a refusal or a slowdown; False if it was lowered just before."""
        if now < self._settling:
            return False
        self._settling = now + max(self._usual, 0.1)
        if math.isinf(self.allowed):
            self._peak = float(max(1, in_flight))
        self.allowed = max(1.0, DECREASE * min(self.allowed, in_flight))
        return True
