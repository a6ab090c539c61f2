"""Calls that keep to a rate limit."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from batchord.chains.errors import RetryLater
from batchord.chains.explain import PutOff
from batchord.chains.ratelimit.admission_queue import AdmissionQueue
from batchord.chains.ratelimit.circuit_breaker import Breaker, current_patience
from batchord.chains.ratelimit.guarded_calls import Guarded, MadeAgain, wait_of
from batchord.chains.ratelimit.limits import Limiter, RateLimit, limiter
from batchord.chains.runtime.deadline import Deadline, current_deadline
from batchord.chains.runtime.item_context import keeping, report_usage
from batchord.chains.runtime.retry import IN_PLACE
from batchord.chains.usage import Usage

T = TypeVar("T")

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
    target: RateLimit | None = None,
    batch: Hashable = None,
    deadlines: Iterable[Deadline | None] | None = None,
    report: Callable[[Usage], None] = report_usage,
    gives_way: bool | None = None,
    guarded: bool = True,
    probe: Callable[[], Awaitable[Any]] | None = None,
    bounded: bool = True,
) -> tuple[T, Usage]:
    """Make the call, which returns what it has used, as soon as the limit allows it.

    If the provider refuses it as there are too many, it is made again, after its Retry-After or
    when fewer are in flight: that is no attempt, whatever a RetryPolicy says. While `target` (None:
    what the limit is about) is down, it is not made. While it waits, the deadlines stand still;
    they and the batch are those of the running code unless they are given. `report` is told of the
    waits. `gives_way`: the item can wait elsewhere (None: if its steps are kept). `guarded`: a
    failure may be of the target, and not of this call alone. `probe` makes a small call of the
    target, which tells whether it answers (None: this call does). Without `bounded` the number of
    calls in flight is free until one is refused, as the call may be many calls, or none.

    Raises:
        PutOff: nobody may call for long, or the target is down, and the item can wait elsewhere.
        OperatorNeeded: the target has been down for longer than is borne, likewise.
    """
    if limit is None:
        return await call()
    gives_way = keeping() if gives_way is None else gives_way
    turns = _turns_of(limit)
    if turns.cooling > IN_PLACE and gives_way:
        # Others wait in its place, who have another provider.
        busy = RetryLater(f"cooling down: {limit.key}", code="rate_limited")
        report(wait_of(turns.cooling))
        raise PutOff(busy, turns.cooling)
    waiting_for = [current_deadline()] if deadlines is None else list(deadlines)
    batch = current_batch() if batch is None else batch
    breaker = breaker_of(target or limit)
    tries = Guarded(turns, breaker, gives_way, waiting_for, report, probe)
    while True:
        probes = await tries.let_through()
        with tries.waiting():
            enters = bounded or turns.has_refused
            reserved = await turns.enter(tokens, batch) if enters else 0
        used: int | None = None
        try:
            if tries.is_open and not probes:
                used = 0
                continue
            answer, usage = await tries.make(call, probe=probes, guarded=guarded)
            used = usage.total_tokens
            if used is not None:
                turns.token_use.learn(tokens, used)
            return answer, usage
        except MadeAgain:
            pass
        finally:
            if enters:
                turns.leave(reserved, used)


_turns: WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[Limiter, RateLimit], AdmissionQueue]
] = WeakKeyDictionary()


_breakers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[Limiter, str], Breaker]] = (
    WeakKeyDictionary()
)


def breaker_of(target: RateLimit) -> Breaker | None:
    """Return the running loop's breaker of a target; None where outages are not borne."""
    if current_patience() <= 0:
        return None
    mine = _breakers.setdefault(asyncio.get_running_loop(), {})
    key = limiter(), target.key
    if key not in mine:
        mine[key] = Breaker(*key)
    return mine[key]


def _turns_of(limit: RateLimit) -> AdmissionQueue:
    mine = _turns.setdefault(asyncio.get_running_loop(), {})
    key = limiter(), limit
    if key not in mine:
        mine[key] = AdmissionQueue(*key)
    return mine[key]
