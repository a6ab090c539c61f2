"""Calls that wait for a rate limit, those of all batches by turns.

What waits here holds nothing, but for the next few calls, which hold places in time: so a batch of
thousands is no more ahead of another one than by these few, in this process and in all others.
"""

import asyncio
import logging
import math
import secrets
from collections.abc import Hashable
from typing import Final

from batchord.chains.ratelimit.adaptive import Adaptive, Begun
from batchord.chains.ratelimit.call_history import ItemRefusals, TokenUse, UnsentNews
from batchord.chains.ratelimit.limits import (
    LONGEST_COOL_DOWN,
    SHORTEST_COOL_DOWN,
    Limiter,
    RateLimit,
    ReserveRequest,
)
from batchord.chains.ratelimit.waiting_calls import PendingCalls, WaitingCall, WaitingCalls, fail
from batchord.chains.runtime.background import spawn

logger = logging.getLogger(__name__)

#: Calls of a process that are asked for, or hold places in time, at once.
AHEAD: Final = 16
#: Seconds after which a process asks again whether others were told to cool down, where it counts
#: nothing.
HEAR: Final = 1.0
#: Seconds more than the provider asks for. Refusals of the same moment are one cool-down.
MARGIN: Final = 0.1


class AdmissionQueue:
    """The calls of one event loop under one limit.

    A task asks the limiter, for many calls at a time, and lives while calls wait or are in flight.
    A call whose place in time has come is asked for once more, together with the next ones' places:
    so it hears of a cool-down that came meanwhile, and that costs no further round trip.
    """

    def __init__(self, limiter: Limiter, limit: RateLimit) -> None:
        self._limiter = limiter
        self._limit = limit
        self._holder = secrets.token_hex(6)
        self._waiting = WaitingCalls()
        self._pending = PendingCalls()
        self._held = self._correction = self._era = 0
        #: By the loop's clock, until when nobody calls, and until when it makes no sense to ask
        #: unless a call ends.
        self._cooling = 0.0
        self._blocked = 0.0
        #: Likewise, after a refusal that did not say for how long.
        self._paused = 0.0
        #: Outages of the target that have ended.
        self._outages = 0
        self.refusals = ItemRefusals()
        #: Answers have unknown lengths, and a later charge comes a whole call too late.
        self.token_use = TokenUse()
        #: How many calls to ask for: twice as many as it got last.
        self._most = AHEAD
        #: Whether the limiter should hear of what is in flight.
        self._news = False
        self._renew = math.inf
        self._adaptive = Adaptive()
        #: Whether the provider has ever refused a call of this process for too many calls.
        self.has_refused = False
        #: Whether calls in flight are counted, as they are at first and after refusals; when the
        #: limiter was asked last.
        self._counts = limit.concurrency is not None or limit.is_free
        self._asked = -math.inf
        #: Calls in flight, of all processes, and how many may be, as the limiter said last.
        self._flying = 0
        self._bound = math.inf
        self._unsent = UnsentNews()
        self._task: asyncio.Task[None] | None = None
        self._woken: asyncio.Event | None = None

    async def enter(self, tokens: int, batch: Hashable) -> int:
        """Wait until a call of about `tokens` tokens may be made; return the reserved tokens.

        `leave` must follow. More than `tokens` is reserved if guesses have been too low.
        """
        if (
            self._goes_free
            and not self._waiting
            and self._room >= 1
            and self._now() >= self._may_ask
        ):
            self._held += 1
            if self._now() >= self._asked + HEAR:
                self._news = True
                self._wake()
            return 0
        call = WaitingCall(tokens, batch, asyncio.get_running_loop().create_future())
        self._waiting.add(call)
        self._wake()
        try:
            await call.allowed
        except asyncio.CancelledError:
            if call.allowed.done() and not call.allowed.cancelled():
                self.leave(call.reserved, 0)  # it was allowed, and will not be made
            raise
        return call.reserved

    @property
    def _goes_free(self) -> bool:
        """Whether calls need not be asked for, as nothing is counted."""
        return self._limit.is_free and not self._counts

    @property
    def cooling(self) -> float:
        """Seconds until anybody may call."""
        return max(0.0, self._cooling - self._now())

    def begin(self) -> Begun:
        """Count a call, admitted by `enter`, that begins."""
        return self._adaptive.begin(self._now(), max(self._held, self._flying))

    def answered(self, call: Begun) -> None:
        """Record that a call was answered; `leave` follows."""
        self._unsent.add_answered(call.at, full=call.level >= self._bound - 1)
        self._adaptive.answered(call, self._now())

    def refused(self, call: Begun, *, said: bool) -> None:
        """Record that the provider refused a call for too many calls; `leave` follows.

        `said`: the provider says for how long; else this process makes no calls for a moment.
        """
        self.has_refused = True
        pause = self._adaptive.refused(call, self._now())
        self._unsent.add_refused(call.at)
        self._counts = self._news = True
        self._wake()
        if not said:
            self._paused = max(self._paused, self._now() + pause)

    def restart(self) -> None:
        """Begin with few calls, as the number that is borne now is unknown."""
        self._adaptive.restart(self._now())
        self._paused = 0.0
        self._wake()

    def recover(self, outages: int) -> None:
        """Go on as before an outage, once for each of those that have ended."""
        if outages != self._outages:
            self._outages, self._paused = outages, 0.0
            self._unsent.add_recovered()
            self._news = True
            self._adaptive.restart(self._now())
            self._wake()

    @property
    def _room(self) -> float:
        """How many more calls may be in flight or hold places in time."""
        return self._adaptive.allowed(self._now()) - self._held - len(self._pending)

    def leave(self, reserved: int, used: int | None) -> None:
        """Release a call's place and correct its reservation; `used` None: as reserved."""
        self._held -= 1
        self._correct(reserved, used)
        if self._counts:
            self._news = True
        self._blocked = 0.0
        self._wake()

    def _correct(self, reserved: int, used: int | None) -> None:
        if self._limit.tpm is not None and used is not None:
            self._correction += used - reserved

    async def cool_down(self, seconds: float) -> None:
        """Let nobody call for so long, in any process."""
        seconds = min(max(seconds, SHORTEST_COOL_DOWN), LONGEST_COOL_DOWN)
        if self._cooling < self._now() + seconds:
            seconds += MARGIN
            self._cooling = self._now() + seconds
            logger.warning("cooling down limit=%s seconds=%.1f", self._limit.key, seconds)
            await self._limiter.cool_down(self._limit, seconds)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _wake(self) -> None:
        if self._task is None:
            self._woken = asyncio.Event()
            self._task = spawn(self._serve())  # it belongs to no single call
        elif self._woken is not None:
            self._woken.set()

    async def _serve(self) -> None:
        asked: list[WaitingCall] = []
        try:
            while True:
                for call in self._pending.drop_given_up():
                    self._correct(call.reserved, 0)
                due = self._due()
                asked = self._next(len(due))
                if due or asked or self._correction or self._news or self._now() >= self._renew:
                    await self._ask(due, asked)
                elif not self._waiting and not self._pending and self._renew == math.inf:
                    return
                else:
                    await self._sleep()
        except BaseException as error:
            # It belongs to those who wait, whatever it is; they may not wait for ever.
            calls = [*asked, *self._pending, *self._waiting.clear()]
            self._pending = PendingCalls()
            fail(calls, error)
            if not calls or not isinstance(error, Exception):
                raise
        finally:
            self._task = self._woken = None

    def _due(self) -> list[WaitingCall]:
        now = self._now()
        return self._pending.due(now) if now >= self._may_ask else []

    def _next(self, due: int) -> list[WaitingCall]:
        """Take the calls to ask for out of the queues, one batch after the other."""
        if self._now() < self._may_ask or (self._pending and not due):
            return []  # with a place in time, one asks again as it comes
        most = min(self._most, AHEAD - len(self._pending) + due, self._room)
        for call in (taken := self._waiting.take(most)):
            call.reserved = self.token_use.expected(call.tokens)
        return taken

    async def _ask(self, due: list[WaitingCall], wanted: list[WaitingCall]) -> None:
        asked = ReserveRequest(
            self._holder,
            self._held,
            self._correction,
            self._era,
            due=len(due),
            pending=len(self._pending) - len(due),
            tokens=[call.reserved for call in wanted],
            news=self._unsent.take(self._now()),
        )
        self._correction, self._news, self._asked = 0, False, self._now()
        answer = await self._limiter.reserve(self._limit, asked)
        now = self._now()
        begun = answer.started + sum(wait == 0 for wait in answer.waits)
        self._flying, self._bound = answer.flying, answer.bound
        self._counts = answer.bound < math.inf or self._unsent.refused
        lease = (self._counts or self._limit.is_free) and asked.held + begun > 0
        renew = HEAR if self._limit.is_free else self._limiter.lease / 3
        self._renew = now + renew if lease else math.inf
        self._waiting.put_back(wanted[len(answer.waits) :])
        if answer.era != self._era:
            void, self._pending, self._era = self._pending, PendingCalls(), answer.era
            self._waiting.put_back(void)
        else:
            for call in due[: answer.started]:
                self._pending.remove(call)
                self._allow(call)
            if answer.started < len(due):
                self._blocked = now + answer.again
        for call, wait in zip(wanted, answer.waits, strict=False):
            if wait == 0:
                self._allow(call)
            else:
                call.comes = now + wait
                self._pending.append(call)
        if answer.cooling:
            self._cooling = now + answer.cooling
        elif len(answer.waits) < len(wanted) and not self._pending:
            self._blocked = now + answer.again
        if wanted:
            self._most = min(AHEAD, 2 * len(answer.waits) + 1)

    @property
    def _may_ask(self) -> float:
        return max(self._cooling, self._blocked, self._paused)

    def _allow(self, call: WaitingCall) -> None:
        self._held += 1
        if call.allowed.done():
            self.leave(call.reserved, 0)  # it was given up meanwhile
        else:
            call.allowed.set_result(None)

    async def _sleep(self) -> None:
        """Wait until there is a request to send, or a call comes or ends."""
        assert self._woken is not None  # noqa: S101
        wakes = self._renew
        if self._pending:
            wakes = min(wakes, max(self._may_ask, self._pending[0].comes))
        elif self._waiting:
            room = 0.0 if self._room >= 1 else self._adaptive.opens(self._now())
            wakes = min(wakes, max(self._may_ask, room))
        try:
            async with asyncio.timeout_at(None if wakes == math.inf else wakes):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()
