"""The tries of one call under the breaker of its target."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from batchord.chains.errors import ChainError, OperatorNeeded, RetryLater
from batchord.chains.explain import PutOff, explain
from batchord.chains.ratelimit.adaptive import Begun
from batchord.chains.ratelimit.admission_queue import AdmissionQueue
from batchord.chains.ratelimit.circuit_breaker import (
    OUTAGE_CODES,
    TRIP,
    Breaker,
    Health,
    current_patience,
)
from batchord.chains.runtime.deadline import Deadline, all_paused
from batchord.chains.runtime.item_context import current_run
from batchord.chains.runtime.retry import IN_PLACE, first_failure
from batchord.chains.runtime.tracing import record_wait
from batchord.chains.usage import Usage

T = TypeVar("T")

#: Seconds. Less is what it takes to ask whether a call may be made, and no wait.
_HARDLY: Final = 0.05

#: Refusals of one call that say something of how many calls are borne, if others are answered
#: between them. After further ones it is made again later and later,
#: up to LONGEST_OWN seconds,
TELLING: Final = 1
ITS_OWN: Final = 0.5
LONGEST_OWN: Final = 2.0
#: and after MOST_ALONE its RetryPolicy counts it: it may ask for more than is ever given.
MOST_ALONE: Final = 5
#: After MOST_REFUSED refusals in a row its RetryPolicy counts it too, even if no other call was
#: answered between them.
MOST_REFUSED: Final = 6
#: Probes that were refused as there are too many calls, until smaller ones are made in turn.
LARGE_PROBES: Final = 3
#: Seconds of a call that failed so soon that what came before and after it tells of it too.
BRIEF: Final = 0.5
#: Seconds, at most, until an item that waits for a provider which is down looks again.
LOOK: Final = 2.0


class MadeAgain(Exception):
    """The call was refused, and waits for its turn once more."""


class Guarded:
    """The tries of one call, under its limit and its target's breaker."""

    def __init__(
        self,
        turns: AdmissionQueue,
        breaker: Breaker | None,
        gives_way: bool,
        deadlines: list[Deadline | None],
        report: Callable[[Usage], None],
        probe: Callable[[], Awaitable[Any]] | None,
    ) -> None:
        self._probe = probe
        self._turns = turns
        self._breaker = breaker
        self._gives_way = gives_way
        self._deadlines = deadlines
        self._report = report
        #: As `retry.Target` has it; and when the call began and failed, in seconds since 1970.
        self.was_well = False
        self._last = 0.0, 0.0
        #: Refusals of this call.
        self._in_a_row = 0
        #: What the item's calls meet here, in all of its attempts.
        run = current_run()
        kept = None if run is None else run.kept
        self._refusals = turns.refusals.of(None if kept is None else kept.item)

    @property
    def is_open(self) -> bool:
        """Whether the target is down."""
        return self._breaker is not None and self._breaker.is_open

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let the deadlines stand still, and report for how long that was."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        try:
            with all_paused(self._deadlines):
                yield
        finally:
            if loop.time() - asked > _HARDLY:
                record_wait(loop.time() - asked)
                self._report(wait_of(loop.time() - asked))

    async def let_through(self) -> bool:
        """Return once the target may be called, as its probe if that is True."""
        breaker = self._breaker
        while breaker is not None and breaker.is_open:
            if breaker.left <= 0 or breaker.heard_ago > LOOK:
                health = await breaker.may_probe()
                if health.probe:
                    self._turns.restart()
                    if not self._can_probe(health):
                        return True
                    health = await self._ask_probe(probe=True)
                if not health.open:
                    break
                self._bear(health, breaker)
            wait = min(LOOK, breaker.left) + random.uniform(0.05, 0.5)
            if self._gives_way:
                self._report(wait_of(wait))
                raise PutOff(_down(breaker), wait, outage=True)
            with self.waiting():
                await asyncio.sleep(wait)
        if breaker is not None:
            self._turns.recover(breaker.outages)
        return False

    async def make(
        self, call: Callable[[], Awaitable[tuple[T, Usage]]], *, probe: bool, guarded: bool
    ) -> tuple[T, Usage]:
        """Make the call once; MadeAgain if it is to be made again."""
        breaker, failed = self._breaker, first_failure()
        self.was_well = failed is not None and (
            breaker is None or _is_after(await breaker.look(), failed)
        )
        began, begun = time.time(), self._turns.begin()
        try:
            made = await call()
        except PutOff:
            raise  # a step inside of the call waits, for a provider of its own
        except RetryLater as error:
            busy = error.code == "rate_limited"
            alone = self._refused_alone() if busy else 0
            if busy and not alone:
                self._turns.refused(begun, said=error.after is not None)
            if busy and error.after is not None:
                self._alive(begun.at)
                await self._cool_down(error, error.after)
            if error.code not in OUTAGE_CODES:
                self._answered(begun, probe=probe)
                raise
            if breaker is None or not (busy or guarded or probe):
                raise
            if not (busy or self._gives_way or breaker.has_answered):
                raise  # an address that never answered is more likely wrong than down
            health = await self._failed(error, breaker, probe=probe)
            self._in_a_row += busy
            few = self._in_a_row < MOST_REFUSED and alone < MOST_ALONE
            if busy and not probe and (health.open or few):
                if alone:
                    with self.waiting():
                        await asyncio.sleep(min(LONGEST_OWN, ITS_OWN * 2.0 ** (alone - 1)))
                raise MadeAgain from None
            error.target, self._last = self, (began, time.time())
            raise
        except ChainError:
            self._answered(begun, probe=probe)  # it has said what it has against this one
            raise
        self._answered(begun, probe=probe)
        return made

    def _answered(self, begun: Begun, *, probe: bool) -> None:
        self._alive(begun.at)
        if not probe:
            self._turns.answered(begun)

    def down_since(self, since: float) -> bool:
        """As `retry.Target` has it."""
        breaker = self._breaker
        return breaker is not None and breaker.was_open(time.time() - since, long=True)

    async def is_well(self, *, ask: bool) -> bool:
        """As `retry.Target` has it; no small call is made while it is down: others probe it."""
        breaker, began, failed = self._breaker, *self._last
        if breaker is None:
            return True
        health = await breaker.look()
        if ask and self._probe is not None and not (health.open or _is_after(health, failed)):
            async with breaker.one_probe:
                health = await breaker.look()
                if not (health.open or _is_after(health, failed)):
                    health = await self._ask_probe(probe=False)
        # While a call took long, an outage may have come and gone.
        brief = failed - began < BRIEF
        return brief and _is_after(health, failed) and not breaker.was_open(time.time() - began)

    def _can_probe(self, health: Health) -> bool:
        """Whether a small call is made as the probe, in place of this one."""
        if self._probe is None or self._breaker is None:
            return False
        # Who refuses calls as there are too many may answer a small one all the same.
        late = health.streak >= TRIP + LARGE_PROBES and health.streak % 2 == 0
        return self._breaker.is_silent or late

    def _refused_alone(self) -> int:
        """Count a refusal; return how often this call was refused where others were answered."""
        count, before = self._refusals
        others = self._breaker is None or self._breaker.answered_at > before
        self._refusals[:] = count + others, asyncio.get_running_loop().time()
        return max(0, int(self._refusals[0]) - TELLING)

    async def _ask_probe(self, *, probe: bool) -> Health:
        """Make the small call, and return what is known then; `probe`: the breaker is open."""
        breaker, began = self._breaker, asyncio.get_running_loop().time()
        assert breaker is not None  # noqa: S101
        assert self._probe is not None  # noqa: S101
        try:
            with self.waiting():
                await self._probe()
        except RetryLater as error:
            if error.code in OUTAGE_CODES:
                return await self._failed(error, breaker, probe=probe)
        except ChainError:
            pass  # it has said what it has against this one
        breaker.answered(began)
        return await breaker.look()

    async def _failed(self, error: RetryLater, breaker: Breaker, *, probe: bool) -> Health:
        breaker.words, breaker.code = str(error), error.code
        health = await breaker.failed(probe=probe)
        self._bear(health, breaker, error)
        return health

    def _alive(self, began: float) -> None:
        if self._breaker is not None:
            self._breaker.answered(began)

    async def _cool_down(self, error: RetryLater, after: float) -> None:
        with all_paused(self._deadlines):
            await self._turns.cool_down(after)
        if after > IN_PLACE and self._gives_way:
            self._report(wait_of(after))
            raise PutOff(error, after) from error
        raise MadeAgain from None

    def _bear(self, health: Health, breaker: Breaker, error: RetryLater | None = None) -> None:
        """Raise if the target has failed for longer than is borne.

        An item that can wait elsewhere looks at that after a call of its own alone: a person who
        has resumed its batch wants to know.
        """
        if health.failing <= current_patience() or (self._gives_way and error is None):
            return
        error = error or _down(breaker)
        raise overdue(error, health.failing) if self._gives_way else error


def overdue(error: BaseException, seconds: float) -> OperatorNeeded:
    """Return the error that pauses a batch whose provider failed for `seconds`, in its words."""
    info = explain(error)
    return OperatorNeeded(
        f"{info.message} (the provider has been down for {seconds:.0f} s: resume when it is back)",
        code=info.code,
        http_status=info.http_status,
        raw=info.raw,
    )


def _down(breaker: Breaker) -> RetryLater:
    return RetryLater(breaker.words or "the provider is down", code="server_error")


def wait_of(seconds: float) -> Usage:
    return Usage(rate_limit_waits=1, rate_limit_wait_ms=int(seconds * 1000))


def _is_after(health: Health, since: float) -> bool:
    return 0 <= health.begun < time.time() - since
