"""Batches the settlements and claims of a process's items into few, full round trips.

One thread talks to the ledger: while a round trip is under way, completed and pending items are
collected here for the next.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import Checkpoint, Claim, SettleResult
from batchord.worker.execution.checkpointer import Checkpointer
from batchord.worker.execution.deferral import DeferredItem, put_aside
from batchord.worker.execution.lease_heartbeat import LeaseHeartbeat
from batchord.worker.execution.work_items import CompletedItem, PendingItem

#: Settlements, and claims, of one round trip at most, so that it stays short.
MOST_AT_ONCE: Final = 1000

#: Verdicts that come with a lease.
WITH_LEASE: Final = ("run", "lost", "suspect", "same")

T = TypeVar("T")


class Unanswered(NamedTuple):
    """Settlements and claims whose answer from the ledger was lost."""

    finished: Sequence[CompletedItem]
    wanted: Sequence[PendingItem]
    error: Exception


class BatchedAnswers(NamedTuple):
    """The ledger's answers to one round trip."""

    aside: Sequence[tuple[DeferredItem, Exception | None]] = ()
    settled: Sequence[tuple[CompletedItem, SettleResult]] = ()
    claimed: Sequence[tuple[PendingItem, Claim]] = ()
    unanswered: Unanswered | None = None


class LedgerBatcher:
    """Collects items for the next round trip, and makes it, on the loop but for the call itself."""

    def __init__(
        self, item_leases: ItemLeases, leases: LeaseHeartbeat, checkpointer: Checkpointer
    ) -> None:
        self._item_leases = item_leases
        self._leases = leases
        self._checkpointer = checkpointer
        self.finished: list[CompletedItem] = []
        self.wanted: list[PendingItem] = []
        self.aside: list[DeferredItem] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    @property
    def waits(self) -> bool:
        """Return whether anything waits for the next round trip."""
        return bool(self.finished or self.wanted or self.aside or self._checkpointer.any_due)

    async def round_trip(self) -> BatchedAnswers:
        """Flush up to MOST_AT_ONCE settlements and claims in one round trip; deferrals go first.

        Never raises: an error belongs to the tasks that wait for these items.
        """
        # First: a deferral may pause its batch, of which no more items must be claimed.
        aside = await self._put_aside() if self.aside else []
        finished, self.finished = _split(self.finished)
        wanted, self.wanted = _split(self.wanted)
        checkpoints = self._checkpointer.take()
        try:
            receipts, claims = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._swap, finished, wanted, checkpoints
            )
        except Exception as error:  # noqa: BLE001
            self._checkpointer.not_sent(checkpoints)
            return BatchedAnswers(aside, unanswered=Unanswered(finished, wanted, error))
        self._checkpointer.sent()
        return BatchedAnswers(
            aside,
            list(zip(finished, receipts, strict=True)),
            list(zip(wanted, claims, strict=True)),
        )

    async def hand_back(self, mine: Sequence[PendingItem]) -> None:
        """Release the items, as if they had not been claimed, and record their checkpoints."""
        self._leases.drop(one.claim_request for one in mine)
        checkpoints = [
            *self._checkpointer.take(),
            *(one.checkpoint for one in mine if one.checkpoint is not None),
        ]
        await asyncio.get_running_loop().run_in_executor(
            self._thread, self._release, mine, checkpoints
        )

    def _release(self, mine: Iterable[PendingItem], checkpoints: Sequence[Checkpoint]) -> None:
        self._item_leases.keep(checkpoints)
        self._item_leases.release(one.claim_request for one in mine)

    async def _put_aside(self) -> list[tuple[DeferredItem, Exception | None]]:
        aside, self.aside = self.aside, []
        checkpoints = [*self._checkpointer.take(), *(one.checkpoint for one in aside)]
        refused: Mapping[str, Exception] = {}
        try:
            refused = await asyncio.get_running_loop().run_in_executor(
                self._thread, put_aside, self._item_leases, self._leases, aside, checkpoints
            )
            self._checkpointer.sent()
        except Exception as raised:  # noqa: BLE001
            self._checkpointer.not_sent(checkpoints)
            refused = {one.claim_request.batch_id: raised for one in aside}
        return [(one, refused.get(one.claim_request.batch_id)) for one in aside]

    def _swap(
        self,
        finished: Sequence[CompletedItem],
        wanted: Sequence[PendingItem],
        checkpoints: Sequence[Checkpoint],
    ) -> tuple[list[SettleResult], list[Claim]]:
        """Make the round trip, in its thread; hold claimed leases, drop settled ones."""
        if finished:
            crash_point("before-settle")
        receipts, claims = self._item_leases.swap(
            [one.settlement() for one in finished],
            [one.claim_request for one in wanted],
            checkpoints,
        )
        if finished:
            crash_point("after-settle")
        if any(receipt.shard_complete for receipt in receipts):
            crash_point("last-settle")
        if any(claim.verdict == "run" for claim in claims):
            crash_point("after-claim")
        self._leases.drop(one.claim_request for one in finished)
        self._leases.hold(
            one.claim_request
            for one, claim in zip(wanted, claims, strict=True)
            if claim.verdict in WITH_LEASE
        )
        return receipts, claims


def _split(asked: list[T]) -> tuple[list[T], list[T]]:
    """Split the list into this round trip's part and the rest."""
    return asked[:MOST_AT_ONCE], asked[MOST_AT_ONCE:]
