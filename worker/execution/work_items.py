"""The forms of a task and its items on their way through a process."""

import asyncio
import logging
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from batchord.ledger.storage.item_transitions import Checkpoint, ClaimRequest, Settlement
from batchord.worker.execution.attempt_result import AttemptResult
from batchord.worker.execution.task_report import TaskReport

logger = logging.getLogger(__name__)


class HandedBack(Exception):
    """The worker is shutting down: its items were released, and run elsewhere."""


@dataclass(eq=False, slots=True)
class TaskState:
    """The state of one task: the items that wait for a slot, and a report of the others."""

    batch_id: str
    shard: int
    waiting: deque[int]
    #: Items that share a slot.
    per_slot: int
    #: Items that have not ended.
    left: int
    ended: asyncio.Future[TaskReport]
    #: Names this execution: a redelivery has the same task id, and another token.
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    report: TaskReport = field(default_factory=TaskReport)
    error: BaseException | None = None
    #: Slots' worth of items that have ended before the task's other items.
    ended_early: float = 0.0

    def claim_request(self, index: int) -> ClaimRequest:
        """Build the ledger's claim request for an item."""
        return ClaimRequest(batch_id=self.batch_id, index=index, token=self.token)

    def item_ended(self, error: BaseException | None = None) -> None:
        """Count an item that has ended; the last item ends the task."""
        self.left -= 1
        self.error = self.error or error
        if self.left == 0 and not self.ended.done():
            if self.error is not None:
                self.ended.set_exception(self.error)
            else:
                self.ended.set_result(self.report)


@dataclass(eq=False, slots=True)
class Slot:
    """A place in flight for one item, or for the items that share a provider call."""

    task_state: TaskState
    #: Items in it that have not ended.
    left: int


class PendingItem(NamedTuple):
    """An item to be claimed, or handed back."""

    slot: Slot
    claim_request: ClaimRequest
    #: Of an item that ran and is handed back.
    checkpoint: Checkpoint | None = None


class CompletedItem(NamedTuple):
    """An item whose attempt has ended, waiting for its settlement."""

    task_state: TaskState
    claim_request: ClaimRequest
    attempt: int
    ended: AttemptResult

    def settlement(self) -> Settlement:
        """Build the settlement for the ledger."""
        return settlement_of(self.claim_request, self.task_state.shard, self.attempt, self.ended)


def settlement_of(
    claim_request: ClaimRequest, shard: int, attempt: int, ended: AttemptResult
) -> Settlement:
    """Build the settlement of an attempt's result."""
    return Settlement(
        batch_id=claim_request.batch_id,
        index=claim_request.index,
        token=claim_request.token,
        shard=shard,
        attempt=attempt,
        status=ended.status,
        outcome=ended.outcome,
        code="" if ended.error is None else ended.error.code,
        output=ended.output,
        usage={} if ended.usage is None else ended.usage.counts(),
        busy=ended.busy,
    )


def log_settled(
    claim_request: ClaimRequest, attempt: int, ended: AttemptResult, *, recorded: bool
) -> None:
    """Log the ledger's answer to a settlement."""
    what = "item settled" if recorded else "late outcome refused"
    log(claim_request, what, attempt=attempt, status=ended.status.value, code=ended.code)


def log_put_off(claim_request: ClaimRequest, code: str, seconds: float) -> None:
    """Log that an item waits for a later attempt."""
    log(claim_request, "item put off", code=code, seconds=round(seconds, 1))


def log(claim_request: ClaimRequest, what: str, **more: object) -> None:
    """Log an event of an item; never its input or output."""
    if not logger.isEnabledFor(logging.INFO):
        return
    fields = {"batch": claim_request.batch_id, "item": claim_request.index, **more}
    logger.info("%s %s", what, " ".join(f"{k}={v}" for k, v in fields.items()), extra=fields)
