"""Calls that keep to a rate limit."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from batchord.chains.errors import RetryLater
from batchord.chains.explain import PutOff
from batchord.chains.ratelimit.admission_queue import AdmissionQueue
from batchord.chains.ratelimit.limits import Limiter, RateLimit, limiter
from batchord.chains.runtime.deadline import Deadline, all_paused, current_deadline
from batchord.chains.runtime.item_context import keeping, report_usage
from batchord.chains.runtime.retry import IN_PLACE
from batchord.chains.usage import Usage

T = TypeVar("T")

#: Seconds. Less is what it takes to ask whether a call may be made, and no wait.
_HARDLY: Final = 0.05

#: The batch that the code runs for: who takes turns.
_batch: ContextVar[Hashable] = ContextVar("batchord_turns_of", default=None)


def current_batch() -> Hashable:
    """Return the batch of the running code, or None."""
    return _batch.get()


@contextmanager
def of_batch(batch: Hashable) -> Iterator[None]:
    """Let the calls that are made inside take the turns of this batch."""
    token = _batch.set(batch)
    try:
        yield
    finally:
        _batch.reset(token)


async def within(
    limit: RateLimit | None,
    tokens: int,
    call: Callable[[], Awaitable[tuple[T, Usage]]],
    *,
    batch: Hashable = None,
    deadlines: Iterable[Deadline | None] | None = None,
    report: Callable[[Usage], None] = report_usage,
) -> tuple[T, Usage]:
    """Make the call, which returns what it has used, as soon as the limit allows it.

    If the provider refuses it with a Retry-After, nobody calls for so long, and then it is made
    again: that is no attempt, whatever a RetryPolicy says. While it waits, the deadlines stand
    still; they and the batch are those of the running code unless they are given. `report` is told
    of the waits.

    Raises:
        PutOff: nobody may call for long, and the item can wait elsewhere.
    """
    if limit is None:
        return await call()
    turns = _turns_of(limit)
    if turns.cooling > IN_PLACE and keeping():
        # Others wait in its place, who have another provider.
        busy = RetryLater(f"cooling down: {limit.key}", code="rate_limited")
        report(_wait(turns.cooling))
        raise PutOff(busy, turns.cooling)
    loop = asyncio.get_running_loop()
    waiting_for = [current_deadline()] if deadlines is None else list(deadlines)
    while True:
        asked = loop.time()
        try:
            with all_paused(waiting_for):
                reserved = await turns.enter(tokens, current_batch() if batch is None else batch)
        finally:
            if loop.time() - asked > _HARDLY:
                report(_wait(loop.time() - asked))
        used: int | None = None
        cohort, began = turns.begin(), loop.time()
        try:
            answer, usage = await call()
            turns.answered(cohort, loop.time() - began)
            used = usage.total_tokens
            if used is not None:
                turns.learn(tokens, used)
            return answer, usage
        except RetryLater as error:
            if error.code != "rate_limited":
                raise
            turns.refused()
            if error.after is None:
                raise
            with all_paused(waiting_for):
                await turns.cool_down(error.after)
            if error.after > IN_PLACE and keeping():
                report(_wait(error.after))
                raise PutOff(error, error.after) from error
        finally:
            turns.leave(reserved, used)


def _wait(seconds: float) -> Usage:
    return Usage(rate_limit_waits=1, rate_limit_wait_ms=int(seconds * 1000))


_turns: WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[Limiter, RateLimit], AdmissionQueue]
] = WeakKeyDictionary()


def _turns_of(limit: RateLimit) -> AdmissionQueue:
    mine = _turns.setdefault(asyncio.get_running_loop(), {})
    key = limiter(), limit
    if key not in mine:
        mine[key] = AdmissionQueue(*key)
    return mine[key]
