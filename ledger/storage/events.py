"""Events of a batch for its watchers: an app, or a page.

All come from the batch's one stream, which is of bounded length and only says that there is news;
an event's content is read from the record. A watcher that falls behind gets the current state and
misses the states in between.
"""

from datetime import datetime
from typing import Literal

from batchord.ledger.models import BatchRecord, BatchStatus, Frozen, RequestCounts
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.keys import EVENTS_KEPT


class ProgressEvent(Frozen):
    """Items have ended, or begun: how many there are in which state now."""

    type: Literal["progress"] = "progress"
    request_counts: RequestCounts
    #: Items that a worker holds now.
    running: int


class StatusEvent(Frozen):
    """The batch has another status than before."""

    type: Literal["status"] = "status"
    status: BatchStatus
    #: When it reached this final status (UTC, the server's clock); None if it has not ended.
    ended_at: datetime | None = None


BatchEvent = ProgressEvent | StatusEvent


class EventReader:
    """A reader of one batch's events, for one watcher: look, wait, look.

    The first look tells where the batch stands; each later one what has changed since, which may
    be nothing. Many items that end between two looks are one event.
    """

    def __init__(self, reader: BatchReader, batch_id: str) -> None:
        self._reader = reader
        self._id = batch_id
        #: Where in the stream the next wait begins; None before the first look.
        self._place: str | None = None
        self._progress: ProgressEvent | None = None
        self._status: BatchStatus | None = None

    @property
    def ended(self) -> bool:
        """Whether the batch had ended when it was last looked at: no event comes any more."""
        return self._status is not None and self._status.ended

    @property
    def place(self) -> str:
        """The position in the stream at which the next wait begins."""
        return self._place or "0-0"

    def look(self) -> list[BatchEvent]:
        """Return what has changed since the last look.

        Raises:
            UnknownBatch, LedgerUnavailable: as for any read; the next look makes up for it.
        """
        # In this order: what happens after the first read wakes who waits behind its place.
        place, statuses = self._reader.news(self._id, self._place, most=2 * EVENTS_KEPT)
        record = self._reader.record(self._id)
        self._place = place
        events = [*self._progressed(record), *self._passed(statuses, record)]
        self._status = record.status
        return events

    def _progressed(self, record: BatchRecord) -> list[BatchEvent]:
        progress = ProgressEvent(request_counts=record.request_counts, running=record.running)
        if progress == self._progress:
            return []
        self._progress = progress
        return [progress]

    def _passed(self, statuses: list[BatchStatus], record: BatchRecord) -> list[BatchEvent]:
        """Return events for the batch's statuses up to its current status."""
        events: list[BatchEvent] = []
        before = self._status
        # An end in between was undone by a retry since: the last event alone says that it is over.
        for status in [*(each for each in statuses if not each.ended), record.status]:
            if status is not before:
                ended_at = record.ended_at if status.ended else None
                events.append(StatusEvent(status=status, ended_at=ended_at))
                before = status
        return events
