"""Reading the news of batches: wake-up calls in a stream, and waiting for them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from batchord.ledger.errors import LedgerRefused, UnreadableBatch
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.ledger.storage.ledger_reader import LedgerReader

#: Longest that one call waits for news, unless the socket timeout is shorter than twice that.
WAIT_STEP: Final = 2.0


def stream_place(place: str) -> tuple[int, int]:
    """Return a place in a stream of events so that two of them compare."""
    milliseconds, _, number = place.partition("-")
    return int(milliseconds), int(number or 0)


class EventReader(LedgerReader):
    """Answers where the news of batches stand, and waits for more."""

    def last_event(self, batch_id: str) -> str:
        """Return where the batch's news stand now, to be handed to `wait_event`."""
        return self.last_events([batch_id])[batch_id]

    def last_events(self, batch_ids: Sequence[str]) -> dict[str, str]:
        """Return where the news of these batches stand now, in one round trip.

        Those of a damaged one stand at their beginning.
        """
        with self._store.redis.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids:
                pipe.xrevrange(self._keys.batch(batch_id).events, count=1)
            found = self._store.replies(pipe)
        return {
            each: str(last[0][0]) if last and not isinstance(last, Exception) else "0-0"
            for each, last in zip(batch_ids, found, strict=True)
        }

    def news(self, batch_id: str, after: str | None, *, most: int) -> tuple[str, list[BatchStatus]]:
        """Return where the news stand now, and the statuses that they tell of behind `after`.

        What was trimmed since is missing; `after` None: only where they stand. `most`: entries
        that are looked through in one call.
        """
        if after is None:
            return self.last_event(batch_id), []
        with self._store.talking():
            found = self._redis.xrange(
                self._keys.batch(batch_id).events, min=f"({after}", count=most
            )
        statuses = [BatchStatus(fields["status"]) for _, fields in found if "status" in fields]
        return (str(found[-1][0]) if found else after), statuses

    def wait_event(self, batch_id: str, after: str, timeout: float) -> str:
        """Wait for news behind `after`, up to `timeout` or a few seconds; return the new place.

        News only wake the caller: what happened is read from the record and the items.
        """
        return self.wait_events({batch_id: after}, timeout).get(batch_id, after)

    def wait_events(self, places: Mapping[str, str], timeout: float) -> dict[str, str]:
        """Wait until one of the batches has news behind its place; return the new places.

        `places`: by batch id. Returns after `timeout` or a few seconds at the latest; a batch
        without news is missing from what is returned.

        Raises:
            UnreadableBatch: one of them is damaged; nothing is known of the others.
        """
        longest = min(WAIT_STEP, self._store.settings.socket_timeout / 2)
        block = max(1, int(min(timeout, longest) * 1000))
        events = {self._keys.batch(batch_id).events: batch_id for batch_id in places}
        asked = {key: places[batch_id] for key, batch_id in events.items()}
        try:
            with self._store.talking():
                news = self._redis.xread(asked, count=PAGE_SIZE, block=block)
        except LedgerRefused as error:
            raise self._damaged_of(places, error) from error
        # RESP2 answers with pairs, RESP3 with a mapping.
        found = {}
        for key, entries in dict(news).items() if news else ():
            flat = entries[0] if entries and isinstance(entries[0], list) else entries
            found[events[key]] = str(flat[-1][0])
        return found

    def _damaged_of(self, batch_ids: Iterable[str], error: LedgerRefused) -> Exception:
        """Return what is to be raised: `UnreadableBatch` if the events of one are no stream."""
        if not error.server_wide:
            with self._store.redis.pipeline(transaction=False) as pipe:
                ids = list(batch_ids)
                for batch_id in ids:
                    pipe.type(self._keys.batch(batch_id).events)
                for batch_id, kind in zip(ids, self._store.replies(pipe), strict=True):
                    if kind not in ("stream", "none"):
                        return UnreadableBatch(batch_id, "events")
        return error

    def quiet_for(self, record: BatchRecord) -> float:
        """Return for how many seconds, by the server's clock, the batch has had no news."""
        last = self.last_event(record.id)
        since = int(last.split("-")[0]) / 1000
        started = (record.in_progress_at or record.created_at).timestamp()
        return self._store.now() - max(since, started)
