"""How many calls may be in flight when nobody has said: as many as the provider bears."""

import math
from typing import Final

#: What is left of it after a refusal, and after calls have become slow.
DECREASE: Final = 0.7
#: So much of what it was at the first refusal comes back with each round of calls.
INCREASE: Final = 0.1
#: Calls are slow that take so many times as long as they used to ...
SLOW: Final = 4.0
#: ... by so many seconds at least, and once so many are known.
SLOW_SECONDS: Final = 0.5
KNOWN: Final = 20

#: What they are then thought to take usually: it may just be other work.
ACCEPTED: Final = 1.2

_RECENT, _USUAL = 0.1, 0.002


class Adaptive:
    """Additive increase, multiplicative decrease (AIMD) of one process's calls under one limit.

    No bound before there is a reason for one. One decrease for all refusals of one round of calls:
    they are about the same moment.
    """

    def __init__(self) -> None:
        self.allowed = math.inf
        self._peak = 1.0
        self._calls = 0
        #: Seconds of a call: of the last ones, and of many.
        self._recent = self._usual = 0.0
        #: Until then a decrease has not shown yet.
        self._settling = 0.0

    def answered(self, now: float, seconds: float, in_flight: int) -> None:
        """A call was answered that took so long, beside so many others."""
        self._calls += 1
        if self._calls == 1:
            self._recent = self._usual = seconds
        self._recent += _RECENT * (seconds - self._recent)
        slow = self._recent > max(SLOW * self._usual, self._usual + SLOW_SECONDS)
        if slow and self._calls >= KNOWN:
            if self.decrease(now, in_flight):
                self._usual *= ACCEPTED
            return
        weight = max(_USUAL, 1 / self._calls) if self._calls < KNOWN else _USUAL
        self._usual += weight * (seconds - self._usual)
        if in_flight >= self.allowed - 1:
            # Not if it is not used up: nobody knows whether more would be borne.
            self.allowed += max(1.0, INCREASE * self._peak) / self.allowed

    def decrease(self, now: float, in_flight: int) -> bool:
        """A call was refused, or they have become slow; False if that was known already."""
        if now < self._settling:
            return False
        self._settling = now + max(self._recent, 0.1)
        if math.isinf(self.allowed):
            self._peak = float(max(1, in_flight))
        self.allowed = max(1.0, DECREASE * min(self.allowed, in_flight))
        return True
