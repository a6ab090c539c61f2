"""Prompts for the publisher: batches that have room for a shard, or may have items to publish."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from batchord.worker.execution.deferral import Alarms
from batchord.worker.execution.ledger_batcher import BatchedAnswers

#: Seconds until a process that has nothing to do looks whether there is room that it was not told
#: of: a producer stops after its first shards, and items may have ended before it said so.
LOOK_AGAIN: Final = 0.2


class PublishPrompts:
    """Calls `on_room` and `on_due` for batches, one at a time, in a thread of its own."""

    def __init__(self, on_room: Callable[[str], object], on_due: Callable[[str], object]) -> None:
        self._on_room = on_room
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._alarms = Alarms(lambda batch_id: self._thread.submit(on_due, batch_id))

    def due_in(self, batch_id: str, seconds: float) -> None:
        """Call `on_due` for the batch in `seconds`, as an item of it waits for its next attempt."""
        self._alarms.set(batch_id, seconds)

    def after(self, answers: BatchedAnswers, *, idle: bool) -> None:
        """Call for the batches that these answers tell of; `idle`: this process has free slots."""
        # What waits for an item with the same input has left its batch's window.
        left = {
            each.claim_request.batch_id
            for each, claim in answers.claimed
            if claim.verdict == "held" and claim.first is not None
        }
        for batch_id in left | {
            one.claim_request.batch_id for one, told in answers.settled if told.room
        }:
            self._thread.submit(self._on_room, batch_id)
        for batch_id in {
            one.claim_request.batch_id for one, told in answers.settled if told.let_go
        }:
            self._alarms.set(batch_id, 0)
        if idle:
            for batch_id in left | {one.claim_request.batch_id for one, _ in answers.settled}:
                self._alarms.set(batch_id, LOOK_AGAIN)
