"""Claims of items outside of tasks, by the same claims, attempts and settlements."""

import asyncio
import logging
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, NamedTuple

from batchord.chains.ratelimit.guard import of_batch
from batchord.chains.runtime.background import spawn
from batchord.chains.runtime.item_context import ItemContext, item_name, scope
from batchord.chains.runtime.loop_thread import default_loop
from batchord.chains.usage import Usage
from batchord.ledger.core.sharding import Shard
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import Checkpoint, Claim, ClaimRequest, SettleResult
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.ledger.storage.output_cache import OutputCache
from batchord.worker.execution.attempt import Runs, Tools, attempt
from batchord.worker.execution.attempt_result import AttemptResult
from batchord.worker.execution.cached_outputs import CachedOutputs
from batchord.worker.execution.fault_attribution import Faults
from batchord.worker.execution.ledger_batcher import WITH_LEASE
from batchord.worker.execution.work_items import log_settled, settlement_of
from batchord.worker.execution.worker_context import WorkerContext

logger = logging.getLogger(__name__)

#: Threads that encode large outputs.
_ENCODERS: Final = 2


class Ran(NamedTuple):
    """The result for a requested item; `ended` is None if it was not claimed."""

    claim_request: ClaimRequest
    claim: Claim
    ended: AttemptResult | None = None
    usage: Usage | None = None


class ItemClaims:
    """Claims items of one batch, runs something of each, and settles them or hands them back.

    Leases, attempts, deadlines and last starts are as with a task: what kills its process here is
    found out as well.
    """

    def __init__(self, runtime: WorkerContext, batch_id: str) -> None:
        self._runtime = runtime
        self._item_leases = ItemLeases(runtime.store)
        self._batch_id = batch_id
        self._encoders = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="encode")
        cached = CachedOutputs(OutputCache(runtime.store), self._encoders)
        self._tools = Tools(runtime.settings, cached, self._encoders, Faults(), runtime.chains)
        self._held: dict[tuple[int, str], ClaimRequest] = {}

    def close(self) -> None:
        """Let go of what an error has left here; its leases run out."""
        self._drop(list(self._held.values()))
        self._encoders.shutdown()

    def _hold(self, claim_requests: Iterable[ClaimRequest]) -> None:
        held = {
            (claim_request.index, claim_request.token): claim_request
            for claim_request in claim_requests
        }
        self._held |= held
        self._runtime.leases.hold(held.values())

    def _drop(self, claim_requests: Iterable[ClaimRequest]) -> None:
        claim_requests = list(claim_requests)
        for claim_request in claim_requests:
            self._held.pop((claim_request.index, claim_request.token), None)
        self._runtime.leases.drop(claim_requests)

    def run(
        self, indexes: Iterable[int], runs: Callable[[int], Runs], *, answered: bool = False
    ) -> Iterator[list[Ran]]:
        """Yield what became of these items, of one page, each with what `runs` says is run of it.

        The caller settles or releases what is yielded before it goes on: those on their last start
        come one by one, after all others.
        """
        token = secrets.token_hex(8)
        claim_requests = [
            ClaimRequest(batch_id=self._batch_id, index=index, token=token, answered=answered)
            for index in indexes
        ]
        if not claim_requests:
            return
        ran = self._attempts(claim_requests, runs)
        suspects = [one.claim_request for one in ran if one.claim.verdict == "suspect"]
        yield [one for one in ran if one.claim.verdict != "suspect"]
        for claim_request in suspects:
            yield self._attempts([replace(claim_request, alone=True)], runs)

    def settle(self, ran: Sequence[Ran], shards: Sequence[Shard]) -> None:
        """Record the outcomes; the items are in these shards. Late ones are refused, as ever."""
        done = [(one, one.ended) for one in ran if one.ended is not None]
        receipts, _ = self._item_leases.swap(
            [
                settlement_of(
                    one.claim_request,
                    _shard_of(one.claim_request.index, shards),
                    one.claim.attempt,
                    ended,
                )
                for one, ended in done
            ],
            [],
        )
        self._drop(one.claim_request for one in ran)
        _raise_first(receipts)
        for (one, ended), receipt in zip(done, receipts, strict=True):
            log_settled(one.claim_request, one.claim.attempt, ended, recorded=receipt.recorded)

    def release(self, ran: Sequence[Ran]) -> None:
        """Hand the items back as if they had not been claimed; what they have used is counted."""
        held = [one for one in ran if one.claim.verdict in WITH_LEASE]
        used = [
            Checkpoint(claim_request=one.claim_request, steps="", usage=one.usage)
            for one in held
            if one.usage is not None
        ]
        if used:
            self._item_leases.keep(used)
        self._drop(one.claim_request for one in held)
        self._item_leases.release(one.claim_request for one in held)

    def _attempts(
        self, claim_requests: Sequence[ClaimRequest], runs: Callable[[int], Runs]
    ) -> list[Ran]:
        _, claims = self._item_leases.swap([], claim_requests)
        _raise_first(claims)
        pairs = list(zip(claim_requests, claims, strict=True))
        self._hold(claim_request for claim_request, claim in pairs if claim.verdict in WITH_LEASE)
        ran = default_loop().run(self._all(pairs, runs))
        # What was refused keeps no lease: a suspect that is not one any more, say.
        self._drop(one.claim_request for one in ran if one.claim.verdict not in WITH_LEASE)
        return ran

    async def _all(
        self, pairs: Sequence[tuple[ClaimRequest, Claim]], runs: Callable[[int], Runs]
    ) -> list[Ran]:
        places = asyncio.Semaphore(max(1, self._runtime.slots))

        async def one(claim_request: ClaimRequest, claim: Claim) -> Ran:
            if claim.verdict not in ("run", "lost"):
                return Ran(claim_request, claim)
            run = ItemContext(
                usage=claim.used, name=item_name(claim_request.batch_id, claim_request.index)
            )
            async with places:
                with scope(run), of_batch(claim_request.batch_id):
                    ended = await attempt(
                        claim, self._tools, lambda: None, run, runs(claim_request.index)
                    )
            return Ran(claim_request, claim, ended, run.usage)

        return list(await asyncio.gather(*(spawn(one(*pair)) for pair in pairs)))


def pages(start: int, stop: int, most: int = PAGE_SIZE) -> Iterator[range]:
    """Yield the indexes from `start` to `stop`, those of one page together, `most` at a time."""
    while start < stop:
        end = min(stop, (start // PAGE_SIZE + 1) * PAGE_SIZE, start + most)
        yield range(start, end)
        start = end


def _raise_first(answers: Iterable[Claim | SettleResult]) -> None:
    """Raise what is wrong with the batch, if it is damaged: it is put off as a whole."""
    for answer in answers:
        if answer.error is not None:
            raise answer.error


def _shard_of(index: int, shards: Sequence[Shard]) -> int:
    shard = shards[bisect_right(shards, index, key=_start) - 1]
    if not shard.start <= index < shard.stop:
        raise LookupError(f"item {index} is in none of {len(shards)} shards")
    return shard.number


def _start(shard: Shard) -> int:
    return shard.start
