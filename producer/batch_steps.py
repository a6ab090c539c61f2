"""The steps of a batch's waits and iterations, which are driven with and without an event loop."""

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from typing import Final

from batchord.chains.errors import BatchordError
from batchord.ledger.core.arguments import check_timeout
from batchord.ledger.errors import UnknownBatch
from batchord.ledger.models import BatchRecord, BatchStatus, Item
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.events import BatchEvent, EventReader
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.producer.standstill import Standstill
from batchord.producer.wait_steps import (
    PATIENCE,
    AwaitEvent,
    Page,
    PagedSteps,
    Sleep,
    Steps,
    ask,
    patiently,
)

#: Seconds between two looks for news that may come with every item.
_BREATH: Final = 0.01

#: Seconds between two looks for events; events in between are coalesced.
_COALESCED: Final = 0.2

#: Items looked at while the next item in order has not ended; doubled as more arrive.
_SMALL_PAGE: Final = 16


class BatchSteps:
    """Waits for one batch, and reads its items in every order.

    `record` reads the batch's record, as its handle does.
    """

    def __init__(
        self, batch_id: str, reader: BatchReader, record: Callable[[], BatchRecord]
    ) -> None:
        self._id = batch_id
        self._reader = reader
        self._record = record

    def until_ended(self, timeout: float | None, raise_if_paused: bool) -> Steps[BatchRecord]:
        check_timeout(timeout)
        standstill = Standstill(self._reader, self._id, raise_if_paused=raise_if_paused)
        deadline = None if timeout is None else time.monotonic() + timeout
        place, status = yield from ask(0, self._state)
        while not status.ended:
            left = float("inf") if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"batch {self._id} has not ended within {timeout:g} s")
            patience = min(left, PATIENCE)
            if standstill.is_due(status):
                yield from ask(patience, standstill.look, status)
            yield from self._doze(patience, place, left)
            place, status = yield from ask(patience, self._state)
        return (yield from ask(PATIENCE, self._record))

    def as_they_stand(self, start: int, stop: int | None) -> PagedSteps[Item]:
        total = yield from ask(0, self._total)
        end = total if stop is None else min(stop, total)
        while start < end:
            page = yield from ask(0, self._reader.items, self._id, start, end)
            if not page:
                raise UnknownBatch(self._id)  # it was deleted meanwhile
            yield Page(page)
            start += len(page)

    def in_order(self, raise_if_paused: bool) -> PagedSteps[Item]:
        standstill = Standstill(self._reader, self._id, raise_if_paused=raise_if_paused)
        total, start, size = (yield from ask(0, self._total)), 0, PAGE_SIZE
        while start < total:
            page, place = yield from ask(PATIENCE, self._look, start, min(start + size, total))
            ready: list[Item] = list(takewhile(lambda item: item.status.ended, page))
            if ready:
                yield Page(ready)
                start += len(ready)
            size = min(PAGE_SIZE, max(_SMALL_PAGE, 2 * len(ready)))
            if not ready:
                yield from self._await_news(place, standstill)
        yield from ask(0, self._refresh)

    def events(self) -> PagedSteps[BatchEvent]:
        news = EventReader(self._reader, self._id)
        while True:
            yield Page((yield from ask(PATIENCE, news.look)))
            if news.ended:
                return
            yield from patiently(PATIENCE, AwaitEvent(self._id, news.place))
            yield Sleep(_COALESCED)

    def as_completed(self, raise_if_paused: bool) -> PagedSteps[Item]:
        standstill = Standstill(self._reader, self._id, raise_if_paused=raise_if_paused)
        total, position, count = (yield from ask(0, self._total)), 0, 0
        seen = bytearray(total)  # an item that was run again has ended more than once
        while count < total:
            indexes, place, ended = yield from ask(PATIENCE, self._look_for_ended, position)
            if indexes:
                position += len(indexes)
                new = [index for index in dict.fromkeys(indexes) if not seen[index]]
                found = yield from ask(PATIENCE, self._reader.items_at, self._id, new)
                items = [one for one in found if one.status.ended]
                for item in items:
                    seen[item.index] = 1
                count += len(items)
                yield Page(items)
                continue
            if ended:
                # Redis went back meanwhile: unseen items stand before our position.
                position = 0
            yield from self._await_news(place, standstill)
        yield from ask(0, self._refresh)

    def _total(self) -> int:
        return self._record().request_counts.total

    def _state(self) -> tuple[str, BatchStatus]:
        """Return the position in the event stream, and the batch's status."""
        # In this order, here and below: an event after the first read wakes the waiting reader.
        return self._reader.last_event(self._id), self._reader.status(self._id)

    def _look(self, start: int, stop: int) -> tuple[list[Item], str]:
        place = self._reader.last_event(self._id)
        return self._reader.items(self._id, start, stop), place

    def _look_for_ended(self, position: int) -> tuple[list[int], str, bool]:
        place, status = self._state()
        return self._reader.completed(self._id, position), place, status.ended

    def _await_news(self, place: str, standstill: Standstill) -> Steps[None]:
        yield from ask(PATIENCE, standstill.look)
        yield from self._doze(PATIENCE, place, float("inf"))

    def _doze(self, patience: float, place: str, timeout: float) -> Steps[None]:
        yield from patiently(patience, AwaitEvent(self._id, place, timeout))
        # Events may come a thousand times a second: look a hundred times.
        yield Sleep(_BREATH)

    def _refresh(self) -> None:
        with suppress(BatchordError):  # every item was read: what becomes of the batch is no news
            self._record()
