"""Items whose attempt has ended without an outcome: they wait for their time, or for a person."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from batchord.chains.runtime.background import call_at
from batchord.ledger.errors import LedgerRefused, concerns_all
from batchord.ledger.models import ItemError, PauseReason
from batchord.ledger.storage.item_leases import ItemLeases, Refused
from batchord.ledger.storage.item_transitions import Checkpoint, ClaimRequest, Deferral
from batchord.worker.execution.attempt_result import AttemptResult
from batchord.worker.execution.lease_heartbeat import LeaseHeartbeat
from batchord.worker.execution.work_items import TaskState

logger = logging.getLogger(__name__)

#: Seconds within which items are due together: those that wait for so long at least, and others.
LONG: Final = 1.0
SHORT: Final = 0.05


class DeferredItem(NamedTuple):
    """An item that is put aside, and what its steps have given."""

    task_state: TaskState
    claim_request: ClaimRequest
    error: ItemError
    checkpoint: Checkpoint
    #: Seconds until its next attempt; None: its batch pauses until a person has acted on the key,
    #: the quota, the model.
    seconds: float | None = None
    #: Whether the attempt counts.
    counts: bool = True

    @classmethod
    def of(
        cls,
        task_state: TaskState,
        claim_request: ClaimRequest,
        error: ItemError,
        ended: AttemptResult,
        checkpoint: Checkpoint,
    ) -> "DeferredItem":
        """Return the item that an attempt's result defers."""
        return cls(task_state, claim_request, error, checkpoint, ended.put_off, ended.counts)


def put_aside(
    item_leases: ItemLeases,
    leases: LeaseHeartbeat,
    items: Sequence[DeferredItem],
    checkpoints: Sequence[Checkpoint],
) -> Refused:
    """Have the items wait, and pause the batches of those that wait for a person.

    `checkpoints` are recorded before the items are released, theirs among them. Returns the batches
    that are damaged: the leases of their items run out.

    Raises:
        LedgerUnavailable: the leases of all run out, and they are started again.
    """
    refused = _pause(item_leases, [one for one in items if one.seconds is None])
    refused |= item_leases.keep(checkpoints)
    leases.drop(one.claim_request for one in items)
    # What is handed back may be claimed at once: not where the pause has failed.
    waiting = [one for one in items if one.claim_request.batch_id not in refused]
    item_leases.release(one.claim_request for one in waiting if one.seconds is None)
    put_off = [
        Deferral(one.claim_request, one.seconds, one.counts)
        for one in waiting
        if one.seconds is not None
    ]
    return refused | item_leases.put_off(put_off)


def _pause(item_leases: ItemLeases, tripped: Sequence[DeferredItem]) -> Refused:
    refused: Refused = {}
    for batch_id, one in {one.claim_request.batch_id: one for one in reversed(tripped)}.items():
        reason = PauseReason(
            code=one.error.code, message=one.error.message, index=one.claim_request.index
        )
        try:
            item_leases.pause(batch_id, reason)
        except LedgerRefused as error:
            if concerns_all(error):
                raise
            refused[batch_id] = error
        else:
            logger.warning("batch paused batch=%s code=%s", batch_id, one.error.code)
    return refused


class Alarms:
    """Tells of a batch when items of it may start again; a few that are due together, once.

    The sweep looks as well, should this process be gone by then.
    """

    def __init__(self, on_due: Callable[[str], object]) -> None:
        self._on_due = on_due
        self._set: set[tuple[str, float]] = set()

    def set(self, batch_id: str, seconds: float) -> None:
        """Call `on_due` for the batch in `seconds`; called on the loop."""
        loop = asyncio.get_running_loop()
        step = LONG if seconds >= LONG else SHORT
        when = step * math.ceil((loop.time() + seconds) / step)
        if (batch_id, when) not in self._set:
            self._set.add((batch_id, when))
            call_at(when, self._ring, batch_id, when)

    def _ring(self, batch_id: str, when: float) -> None:
        self._set.discard((batch_id, when))
        self._on_due(batch_id)
