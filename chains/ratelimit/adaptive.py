"""The adaptive bounds of calls in flight and of calls a second, where no limit is configured."""

import math
import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

#: Calls in flight at first. They double in each RAMP seconds without a refusal, one by one, as
#: those that are begun before the first refusal comes back are refused too.
START: Final = 2
RAMP: Final = 0.1
_MOST_DOUBLINGS: Final = 30
#: What is left of the calls in flight after they have become slow, and of the calls a second after
#: a refusal.
DECREASE: Final = 0.7
SLOWER: Final = 0.85
#: Answers for each call in flight after which one more is tried; doubled each time that the one
#: more was refused, up to the factor MOST_PATIENT.
HOLD: Final = 40
MOST_PATIENT: Final = 32
#: What is tried then, and with each round of answers after: a tenth more.
INCREASE: Final = 0.1
#: More calls a second are tried after PACE_HOLD seconds, at most PACE_PATIENT times as late.
PACE_HOLD: Final = 3.0
PACE_PATIENT: Final = 8
#: While they are fewer than FEW a second, half as many more are tried after each FEW_ROUND
#: answers: what was refused may be about one call alone.
FEW: Final = 2.0
FEW_ROUND: Final = 2.0
FEW_INCREASE: Final = 0.5
#: Seconds without calls after a refusal that does not say for how long; they double with each
#: further one that no answer came between.
PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 15.0
#: Calls a second, at least, and from which on there is no use in counting them.
SLOWEST: Final = 0.3
FASTEST: Final = 1000.0
#: Seconds over which answers are counted.
WINDOW: Final = 1.0
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


@dataclass(slots=True)
class Bound:
    """A bound that is found by trying: held where it was good, and raised now and then.

    `growing`: the last step has not been refused yet.
    """

    value: float = math.inf
    patient: int = 1
    answers: int = 0
    growing: bool = False
    #: What it was before the step that is being tried.
    good: float = math.inf

    def lower(self, value: float) -> None:
        """Hold a lower value; if a step up was refused, that is tried again later than it was."""
        tried = self.growing and self.value < math.inf
        self.patient = min(MOST_PATIENT, 2 * self.patient) if tried else self.patient
        self.value, self.answers, self.growing = value, 0, False

    def answered(self, round_: float, step: float, hold: float) -> None:
        """Count an answer of a bound that is used up; `round_` of them are a round."""
        self.answers += 1
        if self.answers < (round_ if self.growing else hold * self.patient):
            return
        # A step that was answered for a whole round is good, and the next one is tried.
        self.good, self.answers, self.growing = self.value, 0, True
        self.value += step


class Adaptive:
    """Bounds of one process's calls under one limit, from what the provider refuses.

    After a refusal, as many calls are in flight as were answered beside it, and a tenth more are
    tried after a while. Where calls are refused that are alone in flight, it is their number in a
    second that is bounded, likewise.
    """

    def __init__(self) -> None:
        self._flight = Bound()
        self._pace = Bound()
        #: When the calls in flight began to double; None: not yet.
        self._ramp: float | None = None
        self._answers: deque[float] = deque(maxlen=10_000)
        self._pauses = 0
        #: The bounds as they were before refusals that no answer has come between.
        self._before: tuple[Bound, Bound] | None = None
        #: The round of the last refusal: when that was, the calls in flight, and how many are
        #: refused.
        self._refused_at = -math.inf
        self._round = self._round_refused = 0
        #: When the next call may begin, by the pace.
        self._next = 0.0
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

    @property
    def is_paced(self) -> bool:
        """Whether the number of calls in a second is bounded."""
        return self._pace.value < math.inf

    def opens(self, now: float) -> float:
        """When more calls may be allowed than now, if none ends; inf: not by itself."""
        if self.is_paced and self._next > now:
            return self._next
        if self._ramp is None or self.allowed(now) >= self._flight.value:
            return math.inf
        # Later than now, however the sum is rounded.
        further = math.floor(self.allowed(now)) + 1
        return max(now + RAMP / 100, self._ramp + RAMP * math.log2(further / START))

    def due(self, now: float) -> bool:
        """Whether the pace lets a call begin now."""
        return not self.is_paced or self._next <= now

    def begin(self, now: float, in_flight: int) -> Begun:
        """Count a call that begins, one of `in_flight` calls."""
        if self._ramp is None:
            self._ramp = now
        if self._cohort.begun == COHORT:
            self._cohort = Cohort()
        self._cohort.begun += 1
        return Begun(self._cohort, now, in_flight)

    def take_place(self, now: float) -> None:
        """Count a call that is admitted."""
        if self.is_paced:
            self._next = max(now, self._next) + 1 / self._pace.value

    def restart(self, now: float) -> None:
        """Begin with few calls again, as after an outage, and go on from what was borne before."""
        self._ramp, self._pauses = now, 0

    def recover(self, now: float) -> None:
        """Take up the bounds of before an outage, whose refusals say nothing of what is borne."""
        if self._before is not None:
            (self._flight, self._pace), self._before = self._before, None
        self.restart(now)

    def answered(self, call: Begun, now: float) -> None:
        """Record that a call was answered."""
        self._answers.append(now)
        self._pauses = 0
        call.cohort.seconds.append(now - call.at)
        if len(call.cohort.seconds) == HALF and self._is_slow(max(call.cohort.seconds)):
            if self._slow_down(now, call.level):
                self._usual *= ACCEPTED
            return
        if call.at <= self._refused_at:
            return
        self._before = None
        if call.level >= self._flight.value - 1:
            # Not if it is not used up: whether more would be borne is unknown.
            step = max(1.0, INCREASE * self._flight.value)
            self._flight.answered(self._flight.value, step, HOLD * step)
        if self.is_paced:
            rate = self._pace.value
            few = rate < FEW
            self._pace.patient = min(PACE_PATIENT, self._pace.patient)
            step = (FEW_INCREASE if few else INCREASE) * rate
            round_ = FEW_ROUND if few else rate
            self._pace.answered(round_, step, FEW_ROUND if few else PACE_HOLD * rate)
            if self._pace.value > FASTEST:
                self._pace = Bound()

    def refused(self, call: Begun, now: float, in_flight: int) -> float:
        """Record that a call was refused for too many calls; return the seconds to make no calls.

        The seconds count if the provider does not say. Refusals of calls that began before the last
        refusal are about the same moment.
        """
        if call.at <= self._refused_at:
            self._one_less()
            return 0.0
        self._refused_at, self._round, self._round_refused = now, in_flight, 1
        if self._before is None:
            self._before = replace(self._flight), replace(self._pace)
        if self._flight.value > 1 and max(call.level, in_flight) > 1:
            self._lower_flight(in_flight)
        else:
            self._lower_pace(now)
        self._pauses += 1
        longest = min(LONGEST_PAUSE, PAUSE * 2.0 ** min(self._pauses - 1, 10))
        return longest * random.uniform(0.7, 1.0)

    def not_made(self, now: float) -> None:
        """Record that an admitted call was not made, as others beside it were refused."""
        if now - self._refused_at < RAMP:
            self._one_less()

    def _one_less(self) -> None:
        """One more of the calls of the last refusal's round was not borne."""
        self._round_refused += 1
        borne = max(1, self._round - self._round_refused)
        if borne < self._flight.value and not self.is_paced:
            self._flight.value = float(borne)

    def _lower_flight(self, in_flight: int) -> None:
        borne = max(1.0, min(self._flight.value, in_flight) - 1)
        good = self._flight.good if self._flight.growing else math.inf
        self._flight.lower(max(1.0, min(borne, good)))

    def _lower_pace(self, now: float) -> None:
        self._flight.lower(1.0)
        while self._answers and self._answers[0] < now - WINDOW:
            self._answers.popleft()
        if not self.is_paced:
            one_by_one = 1 / max(self._usual, 1 / FASTEST)
            known = len(self._answers)
            pace = SLOWER * known if known else min(1.0, one_by_one / 2)
        elif self._pace.growing:
            pace = min(self._pace.good, SLOWER * self._pace.value)
        else:
            pace = DECREASE * self._pace.value
        self._pace.lower(max(SLOWEST, pace))
        self._next = now + 1 / self._pace.value

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
