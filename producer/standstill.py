"""Says, while a batch is waited for, why it stands still: no wait hangs without a word."""

import logging
import time
from typing import Final

from batchord.ledger.errors import BatchPaused
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.storage.batch_reader import BatchReader

logger = logging.getLogger(__name__)

#: Seconds from the start of a wait to the first look at the workers, and between two later looks.
_FIRST_LOOK: Final = 1.0
_LOOK: Final = 30.0


def why_waiting(reader: BatchReader, record: BatchRecord) -> str:
    """Return why nothing of a batch runs, and the cure, in a line; empty if something does."""
    if record.status.ended or record.running:
        return ""
    if record.status is BatchStatus.PAUSED:
        reason = record.reason
        if reason is None:
            return "it is paused: nothing new starts until it is resumed"
        return f"it is paused, {reason.code}: {reason.message}; mend that, then resume it"
    return reader.fleet().trouble(record.needs)


class Standstill:
    """Looks at one batch during one wait, and logs each reason once."""

    def __init__(self, reader: BatchReader, batch_id: str, *, raise_if_paused: bool) -> None:
        self._reader = reader
        self._batch_id = batch_id
        self._raise_if_paused = raise_if_paused
        self._told: set[str] = set()
        self._next_look = time.monotonic() + _FIRST_LOOK

    def is_due(self, status: BatchStatus) -> bool:
        """Return whether a batch of this status is to be looked at now."""
        paused = status is BatchStatus.PAUSED
        return not status.ended and (paused or time.monotonic() >= self._next_look)

    def look(self, status: BatchStatus | None = None) -> None:
        """Log why the batch stands still, if it does and that was not logged before.

        `status`: the batch's, if it was just read.

        Raises:
            BatchPaused: with `raise_if_paused`, if the workers have paused it.
            UnknownBatch: it is gone.
        """
        if status is None:
            status = self._reader.status(self._batch_id)
        if not self.is_due(status):
            return
        paused = status is BatchStatus.PAUSED
        record = self._reader.record(self._batch_id)
        if paused and self._raise_if_paused and (reason := record.reason) is not None:
            raise BatchPaused(self._batch_id, reason.code, reason.message)
        if not paused:
            self._next_look = time.monotonic() + _LOOK
        self._tell(why_waiting(self._reader, record))

    def _tell(self, why: str) -> None:
        if why and why not in self._told:
            self._told.add(why)
            logger.warning("batch %s waits: %s", self._batch_id, why)
