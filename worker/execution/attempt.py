"""One attempt of one item: run its chain under the deadline, to an outcome or a deferral."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple

from batchord.chains import ChainNotFound, RegisteredChain
from batchord.chains.errors import BadSpec, OperatorNeeded, RetryLater
from batchord.chains.explain import PutOff, as_chain_error
from batchord.chains.ratelimit.circuit_breaker import patience
from batchord.chains.runtime.checkpoints import Checkpoints
from batchord.chains.runtime.deadline import Deadline
from batchord.chains.runtime.item_context import ItemContext
from batchord.chains.runtime.retry import RetryPolicy
from batchord.chains.runtime.shared_loop import ProcessTask
from batchord.chains.specs.chain_spec import is_spec
from batchord.ledger.errors import LedgerUnavailable
from batchord.ledger.models import ItemError, ItemStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.item_transitions import Claim
from batchord.worker.execution.attempt_result import (
    CACHED,
    FREE,
    AttemptResult,
    Problem,
    encoded,
    ended_as,
    explained,
    failed,
    same_as_first,
    worker_lost,
)
from batchord.worker.execution.cached_outputs import CachedOutputs, name_of
from batchord.worker.execution.chain_source import ChainSource
from batchord.worker.execution.fault_attribution import Faults
from batchord.worker.execution.item_input import config_of, input_of

#: What is run of an item; an attempt is mostly the whole chain.
Runs = Callable[[RegisteredChain, Claim], Awaitable[Any]]

#: Seconds until an item is tried again whose chain could not be read.
_NO_LEDGER: Final = 1.0

#: Seconds until an item is published again that came to a worker without its chain.
_ELSEWHERE: Final = 5.0

#: Under which key the attempts of the whole chain are counted.
_CHAIN: Final = "chain"

#: The status of an item whose attempt is cancelled from outside; None: its batch was not stopped.
StopsAs = Callable[[], ItemStatus | None]


class Tools(NamedTuple):
    """The tools that all attempts of a process share."""

    settings: Settings
    cached: CachedOutputs
    #: Where large outputs are encoded, beside the loop.
    threads: Executor
    #: What the items of each batch meet.
    faults: Faults
    #: Where the chain of a batch is found.
    chains: ChainSource


async def whole_chain(chain: RegisteredChain, claim: Claim) -> Any:
    """Return the chain's output for the item's input."""
    return await chain.chain.ainvoke(input_of(chain, claim), config_of(claim))


async def attempt(
    claim: Claim, tools: Tools, stops_as: StopsAs, run: ItemContext, runs: Runs = whole_chain
) -> AttemptResult:
    """Run one attempt.

    `run` collects what its calls use, and is the caller's, who may need it if there is no outcome.
    If the process cancels the running task, `stops_as` tells what becomes of the item; None is no
    outcome, and the cancellation is raised. Whatever else happens is the item's own error.
    """
    if claim.verdict == "lost":
        return failed(worker_lost(claim.attempt))
    if claim.first is not None:
        return same_as_first(claim, claim.first)
    started = time.perf_counter()

    def busy() -> float:
        return time.perf_counter() - started

    task = asyncio.current_task()
    if isinstance(task, ProcessTask):
        task.run = run
    try:
        with run.running():
            return await _attempt(claim, tools, run, runs)
    except BaseException as error:
        # SystemExit and the like too: one item's code must not end everybody's process.
        if isinstance(error, asyncio.CancelledError):
            status = stops_as() if run.error is None else None
            if status is None and run.error is None and _by_process(task):
                raise
            await _uncancel(task)
            if status is not None:
                return ended_as(status, "null", run.usage, busy())
        problem = explained(run.error or error, claim.attempt)
        return failed(problem.error, run.usage, busy())


async def _chain(claim: Claim, tools: Tools) -> RegisteredChain | AttemptResult:
    """Return the item's chain, or the result of an attempt that has none."""
    batch_id = "" if claim.claim_request is None else claim.claim_request.batch_id
    try:
        return await tools.chains.aget(claim.chain, batch_id, tools.threads)
    except ChainNotFound as error:
        missing = failed(_item_error("chain_not_found", error, claim))
        # What travels as data is gone. Else a worker that has the chain runs the item.
        return missing if is_spec(claim.chain) else _later(missing, _ELSEWHERE)
    except BadSpec as error:
        return failed(_item_error("bad_spec", error, claim))
    except LedgerUnavailable as error:
        # The item has not failed of it: it is tried again when Redis answers.
        found = explained(error, claim.attempt).error
        return _later(failed(found), _NO_LEDGER)


def _item_error(code: str, error: Exception, claim: Claim) -> ItemError:
    return ItemError(code=code, message=str(error), attempts=claim.attempt)


def _later(result: AttemptResult, seconds: float) -> AttemptResult:
    """Return the result as that of an attempt that does not count; the item is tried again."""
    return result._replace(aside=True, put_off=seconds, counts=False)


async def _attempt(claim: Claim, tools: Tools, run: ItemContext, runs: Runs) -> AttemptResult:
    chain = await _chain(claim, tools)
    if isinstance(chain, AttemptResult):
        return chain
    started = time.perf_counter()
    name = name_of(chain, claim) if claim.cache else None
    if name is not None and (known := await tools.cached.get(name)) is not None:
        return ended_as(ItemStatus.SUCCEEDED, known, run.usage or FREE, 0.0, more=CACHED)
    value, problem = await _run(chain, claim, tools, run, runs)
    busy = time.perf_counter() - started
    if problem is None:
        value, problem = await encoded(
            *(chain.chain.plain, value, claim.attempt), tools.settings, tools.threads
        )
    if problem is None and name is not None:
        await tools.cached.put(name, value)
    if problem is not None:
        return failed(problem.error, run.usage, busy)._replace(
            aside=problem.aside, put_off=problem.put_off, counts=problem.counts
        )
    return ended_as(ItemStatus.SUCCEEDED, value, run.usage, busy)


async def _run(
    chain: RegisteredChain, claim: Claim, tools: Tools, run: ItemContext, runs: Runs
) -> tuple[Any, Problem | None]:
    """Run the chain under the item's deadline; whatever it raises is the item's error."""
    settings = tools.settings
    seconds = chain.timeout or settings.item_timeout
    deadline = Deadline(seconds)
    bears = chain.outage_patience
    try:
        with tools.faults.running(run.kept):
            with patience(settings.outage_patience if bears is None else bears):
                async with deadline:
                    value = await runs(chain, claim)
                    if _cancelling():
                        await asyncio.sleep(0)  # a chain that cancels itself hears of it here
            if run.error is not None:
                raise run.error
        return value, None
    except BaseException as error:
        # A chain may also raise CancelledError by itself; left unsettled, its message
        # would hold a slot of this worker for ever.
        if isinstance(error, asyncio.CancelledError) and _cancelling():
            raise
        if run.error is not None:
            error = run.error
            await _uncancel(asyncio.current_task())
        elif deadline.expired():
            error = ItemTimedOut(seconds)
        error = await tools.faults.judge(error, run.kept)
        return None, explained(error, claim.attempt)._replace(
            **_aside(error, chain.retry, run.kept)
        )


class ItemTimedOut(RetryLater):
    """The deadline of an attempt was over before its chain had an output."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"no output within {seconds:g} s: raise the chain's timeout or BATCHORD_ITEM_TIMEOUT",
            code="timeout",
        )


def _aside(
    error: BaseException, policy: RetryPolicy | None, kept: Checkpoints | None
) -> dict[str, Any]:
    """Whether this is no outcome, and in how many seconds the item is tried again.

    A step may ask for that, as its own RetryPolicy says. A provider that is busy and says for how
    long is asked again however often; for all else the chain's policy counts.
    """
    ours = as_chain_error(error)
    if isinstance(ours, OperatorNeeded):
        return {"aside": True}
    wait: float | None = None
    if isinstance(ours, PutOff) and ours.outage:
        return {"aside": True, "put_off": ours.after, "counts": False}
    if isinstance(ours, PutOff):
        wait = ours.after
    elif isinstance(ours, RetryLater) and ours.code == "rate_limited" and ours.after is not None:
        wait = ours.after * (1 + 0.1 * random.random())
    elif policy is not None and kept is not None:
        before = kept.tries(_CHAIN)
        tries = replace(before, count=before.count + 1)
        wait = policy.delay(tries.count, error, elapsed=time.time() - tries.since)
        if wait is not None:
            kept.tried(_CHAIN, tries)
    return {} if wait is None else {"aside": True, "put_off": wait}


def _cancelling() -> bool:
    """Whether someone outside asked the running item to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _by_process(task: asyncio.Task[Any] | None) -> bool:
    """Whether the process has cancelled the item, and not its own code."""
    return not isinstance(task, ProcessTask) or task.stopped


async def _uncancel(task: asyncio.Task[Any] | None) -> None:
    """Forget that the task was cancelled, also if it has not come to hear of it yet."""
    while task is not None and task.cancelling():
        task.uncancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
