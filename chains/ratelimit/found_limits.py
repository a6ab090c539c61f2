"""How many calls a provider bears, in flight and a second, found by what it refuses.

`ledger/lua/ratelimit/found.lua` has it for all workers; this is the same for one process.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

#: Calls in flight at first. They double in each RAMP seconds without a refusal, one by one, as
#: those that are begun before the first refusal comes back are refused too.
START: Final = 2
RAMP: Final = 0.1
#: Seconds after which the ramp is over, and seconds without a call after which it begins again.
FREE: Final = 1.0
IDLE: Final = 60.0
#: Answers for each call in flight after which one more is tried; doubled each time that the one
#: more was refused, up to the factor MOST_PATIENT.
HOLD: Final = 40
MOST_PATIENT: Final = 32
#: What is tried then, and with each round of answers after: a tenth more.
INCREASE: Final = 0.1
#: What is left of the calls a second after a refusal.
SLOWER: Final = 0.85
DECREASE: Final = 0.7
#: More calls a second are tried after PACE_HOLD seconds, at most PACE_PATIENT times as late.
PACE_HOLD: Final = 3.0
PACE_PATIENT: Final = 8
#: While they are fewer than FEW a second, half as many more are tried after each FEW_ROUND
#: answers: what was refused may be about one call alone.
FEW: Final = 2.0
FEW_ROUND: Final = 2.0
FEW_INCREASE: Final = 0.5
#: Calls a second, at least, and from which on there is no use in counting them.
SLOWEST: Final = 0.3
FASTEST: Final = 1000.0
#: Seconds over which answers are counted.
WINDOW: Final = 1.0


class News(NamedTuple):
    """News of a process's calls since its last news; all times are seconds."""

    #: Since refused calls began.
    refused: Sequence[float] = ()
    #: Calls that were answered, those of them that began as the bound of calls in flight was used
    #: up, and since the youngest of them began.
    answered: int = 0
    full: int = 0
    youngest: float = 0.0
    #: An outage is over: refusals since its beginning say nothing.
    recovered: bool = False


@dataclass(slots=True)
class Bound:
    """A bound that is found by trying: held where it was good, and raised now and then.

    `growing`: the last step has not been refused yet.
    """

    value: float = math.inf
    #: What it was before the step that is being tried.
    good: float = math.inf
    growing: bool = False
    patient: int = 1
    answers: int = 0

    def lower(self, value: float) -> None:
        """Hold a lower value; if a step up was refused, that is tried again later than it was."""
        tried = self.growing and self.value < math.inf
        self.patient = min(MOST_PATIENT, 2 * self.patient) if tried else self.patient
        self.value, self.answers, self.growing = value, 0, False

    def answered(self, count: int, round_: float, step: float, hold: float) -> None:
        """Count answers under a bound that is used up; `round_` of them are a round."""
        self.answers += count
        if self.answers < (round_ if self.growing else hold * self.patient):
            return
        # A step that was answered for a whole round is good, and the next one is tried.
        self.good, self.answers, self.growing = self.value, 0, True
        self.value += step


class FoundLimits:
    """The bounds of calls in flight and of calls a second, which all processes share.

    After a refusal, as many calls are in flight as were answered beside it, and a tenth more are
    tried after a while. Refusals of calls that began before the last refusal are about the same
    moment: each of them is one call less. Where a call is refused that is alone in flight, it is
    the number in a second that is bounded, likewise. Times are the limiter's.
    """

    def __init__(self, now: float) -> None:
        self._began = self._used = now
        self._flight, self._pace = Bound(), Bound()
        self._refused_at = -math.inf
        #: Calls in flight at the last refusal, and how many of them were refused.
        self._round = self._lost = 0
        #: The bounds as they were before refusals that no answer has come between.
        self._before: tuple[Bound, Bound] | None = None
        self._answers: deque[tuple[float, int]] = deque(maxlen=1000)

    def take(self, news: News, flying: int, now: float) -> float:
        """Take in what a process tells; return the seconds in which no call should begin.

        `flying`: calls in flight, of all processes.
        """
        if now - self._used > IDLE or (news.recovered and now - self._began > FREE):
            self._began = now
        self._used = now
        if news.recovered and self._before is not None:
            (self._flight, self._pace), self._before = self._before, None
        slowed = [self._refused(now - age, flying + len(news.refused), now) for age in news.refused]
        if news.answered:
            self._answers.append((now, news.answered))
            if now - news.youngest > self._refused_at:
                self._answered(news)
        return max(slowed, default=0.0)

    def allowed(self, now: float, *, ramps: bool) -> float:
        """How many calls may be in flight; inf: any number. `ramps`: few at first."""
        most = self._flight.value
        if ramps and now - self._began < FREE:
            most = min(most, START * 2.0 ** ((now - self._began) / RAMP))
        return most if most == math.inf else math.floor(most)

    @property
    def gap(self) -> float:
        """Seconds between two calls."""
        return 1 / self._pace.value

    def _refused(self, at: float, flying: int, now: float) -> float:
        flight, pace = self._flight, self._pace
        if at <= self._refused_at:
            self._lost += 1
            borne = max(1.0, self._round - self._lost)
            if borne < flight.value and pace.value == math.inf:
                flight.value = borne
            return 0.0
        self._refused_at, self._round, self._lost = now, flying, 1
        if self._before is None:
            self._before = replace(flight), replace(pace)
        if flight.value > 1 and flying > 1:
            good = flight.good if flight.growing else math.inf
            flight.lower(max(1.0, min(min(flight.value, flying) - 1, good)))
            return 0.0
        flight.lower(1.0)
        pace.lower(max(SLOWEST, self._slower(now)))
        return self.gap

    def _slower(self, now: float) -> float:
        pace = self._pace
        if pace.value == math.inf:
            known = sum(count for at, count in self._answers if at > now - WINDOW)
            return SLOWER * known if known else 1.0
        return min(pace.good, SLOWER * pace.value) if pace.growing else DECREASE * pace.value

    def _answered(self, news: News) -> None:
        flight, pace, self._before = self._flight, self._pace, None
        if flight.value < math.inf and news.full:
            # Not if it is not used up: whether more would be borne is unknown.
            step = max(1.0, INCREASE * flight.value)
            flight.answered(news.full, flight.value, step, HOLD * step)
        if pace.value < math.inf:
            rate, few = pace.value, pace.value < FEW
            pace.patient = min(PACE_PATIENT, pace.patient)
            step = (FEW_INCREASE if few else INCREASE) * rate
            pace.answered(
                news.answered,
                FEW_ROUND if few else rate,
                step,
                FEW_ROUND if few else PACE_HOLD * rate,
            )
            if pace.value > FASTEST:
                self._pace = Bound()
