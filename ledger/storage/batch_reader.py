"""Reading the ledger: batches, pages of items, completion order, and what the sweep looks for.

It borrows the store's connection and writes nothing, but for index entries whose batch is gone.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from batchord.ledger.core.arguments import check_int
from batchord.ledger.core.compression import split_head, unpack
from batchord.ledger.core.json_values import decode
from batchord.ledger.core.message_ids import is_batch_id
from batchord.ledger.core.sharding import Shard
from batchord.ledger.errors import LedgerRefused, UnknownBatch, UnreadableBatch
from batchord.ledger.models import (
    BatchRecord,
    BatchStatus,
    ChainRecord,
    ChainUse,
    Item,
)
from batchord.ledger.storage.batch_search import BatchSearch
from batchord.ledger.storage.batch_stats import Progress
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.fleet import Fleet, FleetStore
from batchord.ledger.storage.keys import PAGE_SIZE, page_of
from batchord.ledger.storage.mappers import item_of, reading, record_of

logger = logging.getLogger(__name__)

#: Longest that one call waits for news, unless the socket timeout is shorter than twice that.
WAIT_STEP: Final = 2.0

#: How kombu names the lists of a queue with priorities (kombu.transport.redis, `Channel`).
PRIORITY_STEPS: Final = (0, 3, 6, 9)
PRIORITY_SEPARATOR: Final = "\x06\x16"


def stream_place(place: str) -> tuple[int, int]:
    """Return a place in a stream of events so that two of them compare."""
    milliseconds, _, number = place.partition("-")
    return int(milliseconds), int(number or 0)


class BatchReader:
    """Answers about batches and items as the ledger has them now."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._keys = store.keys
        # The replies of redis-py are typed for sync and async clients at once; this one is sync.
        self._redis: Any = store.redis

    def record(self, batch_id: str) -> BatchRecord:
        """Return the batch.

        Raises:
            UnknownBatch: no batch has this id, or it was never sealed and is gone.
        """
        if not is_batch_id(batch_id):
            raise UnknownBatch(batch_id)
        return self.records([batch_id])[0]

    def records(self, batch_ids: Sequence[str]) -> list[BatchRecord]:
        """Return several batches in one round trip.

        Raises:
            UnknownBatch: one of them does not exist.
            UnreadableBatch: one of them is damaged.
        """
        found = self._found(batch_ids)
        records = []
        for batch_id, record in zip(batch_ids, found, strict=True):
            if record is None:
                raise UnknownBatch(batch_id)
            if isinstance(record, UnreadableBatch):
                raise record
            records.append(record)
        return records

    def unreadable(self) -> list[UnreadableBatch]:
        """Return what is wrong with each batch that has not ended and cannot be read."""
        return [one for one in self._found(self.active()) if isinstance(one, UnreadableBatch)]

    def _found(self, batch_ids: Sequence[str]) -> list[BatchRecord | UnreadableBatch | None]:
        with self._store.redis.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids:
                keys = self._keys.batch(batch_id)
                pipe.hgetall(keys.meta)
                pipe.zcard(keys.leases)
                pipe.zcard(keys.due)
            replies = self._store.replies(pipe)
        return [
            _read(batch_id, meta, running, put_off) if meta else None
            for batch_id, meta, running, put_off in zip(
                batch_ids, replies[::3], replies[1::3], replies[2::3], strict=True
            )
        ]

    def progress(self, batch_id: str) -> Progress:
        """Return how the batch goes, in O(1).

        Raises:
            UnknownBatch: no batch has this id.
            UnreadableBatch: it is damaged.
        """
        return BatchSearch(self._store).one(batch_id)[1]

    def status(self, batch_id: str) -> BatchStatus:
        """Return only the status, in O(1)."""
        with reading(batch_id):
            with self._store.talking():
                status = self._redis.hget(self._keys.batch(batch_id).meta, "status")
            if status is None:
                raise UnknownBatch(batch_id)
            return BatchStatus(status)

    def spec(self, batch_id: str) -> str | None:
        """Return the chain that the batch has recorded as data, as JSON; None: it has none."""
        with reading(batch_id), self._store.talking():
            found: str | None = self._redis.hget(self._keys.batch(batch_id).meta, "spec")
        return found

    def inputs_digest(self, batch_id: str) -> str | None:
        """Return the digest of the inputs that was kept at the seal; None: none was."""
        with self._store.talking():
            found = self._redis.hget(self._keys.batch(batch_id).meta, "inputs_digest")
        return None if found is None else str(found)

    def newest(self, *, limit: int, after: str | None) -> list[BatchRecord]:
        """Return up to `limit` sealed batches, newest first, those behind batch `after` if given.

        What cannot be read is left out, and told of in the log.

        Raises:
            UnknownBatch: `after` names no batch.
            TypeError, ValueError: `limit` is no int of at least 1.
        """
        check_int("limit", limit, 1)
        start = 0
        if after is not None:
            if not is_batch_id(after):
                raise UnknownBatch(after)
            with self._store.talking():
                rank = self._redis.zrevrank(self._keys.batches, after)
            if rank is None:
                raise UnknownBatch(after)
            start = rank + 1
        records: list[BatchRecord] = []
        while len(records) < limit:
            with self._store.talking():
                ids = self._redis.zrevrange(self._keys.batches, start, start + limit - 1)
            found = self._found(ids)
            gone = [each for each, record in zip(ids, found, strict=True) if record is None]
            if gone:
                with self._store.talking():
                    self._redis.zrem(self._keys.batches, *gone)
            for each in found:
                if isinstance(each, UnreadableBatch):
                    logger.warning("left out: %s", each)
            records += [
                record
                for record in found
                if isinstance(record, BatchRecord) and record.status is not BatchStatus.VALIDATING
            ]
            start += len(ids) - len(gone)
            if len(ids) < limit:
                break
        return records[:limit]

    def items(self, batch_id: str, start: int, stop: int) -> list[Item]:
        """Return the items `start` to `stop` in input order, in any state, at most one page."""
        check_int("start", start, 0)
        check_int("stop", stop, 0)
        page = page_of(start)
        stop = min(stop, (page + 1) * PAGE_SIZE)
        return self.items_at(batch_id, range(start, stop)) if start < stop else []

    def items_at(self, batch_id: str, indexes: Sequence[int]) -> list[Item]:
        """Return the items at `indexes`, in that order; unknown ones are missing."""
        for index in indexes:
            check_int("index", index, 0)
        with reading(batch_id):
            return self._items_at(batch_id, indexes)

    def _items_at(self, batch_id: str, indexes: Sequence[int]) -> list[Item]:
        keys = self._keys.batch(batch_id)
        pages: dict[int, list[int]] = {}
        for index in indexes:
            pages.setdefault(page_of(index), []).append(index)
        with self._store.talking(), self._store.redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.meta, "total")
            for page, wanted in pages.items():
                pipe.hmget(keys.outcomes(page), [str(index) for index in wanted])
                pipe.exists(keys.ids(page))
            total, *replies = pipe.execute()
            known = range(int(total or 0))
            outcomes: dict[int, str | None] = {}
            for wanted, found in zip(pages.values(), replies[::2], strict=True):
                outcomes.update(zip(wanted, found, strict=True))
            named = [page for page, known in zip(pages, replies[1::2], strict=True) if known]
            open_ = [index for index in indexes if outcomes[index] is None]
            # Most batches have no custom_ids, and most items that are read have ended.
            for page in named:
                pipe.hmget(keys.ids(page), [str(index) for index in pages[page]])
            if open_:
                pipe.hmget(keys.runs, [str(index) for index in open_])
            replies = pipe.execute() if named or open_ else []
        ids: dict[int, str | None] = {}
        for page, found in zip(named, replies, strict=False):
            ids.update(zip(pages[page], found, strict=True))
        runs = dict(zip(open_, replies[-1], strict=True)) if open_ else {}
        return [
            item_of(index, outcomes[index], ids.get(index), runs.get(index))
            for index in indexes
            if index in known
        ]

    def inputs(self, batch_id: str, indexes: Sequence[int]) -> list[Any]:
        """Return the inputs at `indexes`, all in one page; None where one is missing."""
        if not indexes:
            return []
        keys = self._keys.batch(batch_id)
        with reading(batch_id):
            with self._store.talking():
                texts = self._redis.hmget(
                    keys.inputs(page_of(indexes[0])), [str(index) for index in indexes]
                )
            return [None if text is None else decode(split_head(unpack(text))[1]) for text in texts]

    def completed(self, batch_id: str, start: int) -> list[int]:
        """Return up to a page of indexes in the order of their settling, from position `start`."""
        check_int("start", start, 0)
        done = self._keys.batch(batch_id).done
        with reading(batch_id):
            with self._store.talking():
                found = self._redis.lrange(done, start, start + PAGE_SIZE - 1)
            return [int(index) for index in found]

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

    def chain(self, name: str) -> ChainRecord | None:
        """Return a chain as the workers announced it, or None."""
        with self._store.talking():
            found = self._redis.hget(self._keys.chains, name)
        return None if found is None else ChainRecord.model_validate_json(found)

    def chains(self) -> dict[str, ChainRecord]:
        """Return every chain that workers announced, by name."""
        with self._store.talking():
            found = self._redis.hgetall(self._keys.chains)
        return {name: ChainRecord.model_validate_json(found[name]) for name in sorted(found)}

    def fleet(self) -> Fleet:
        """Return the workers that are alive."""
        return FleetStore(self._store).read()

    def has_task(self, name: str) -> bool:
        """Whether a worker has announced a user's Celery task of this name."""
        with self._store.talking():
            return bool(self._redis.sismember(self._keys.tasks, name))

    def used(self, chain: str) -> ChainUse | None:
        """Return what the chain's completed batches have used together; None: nothing is known."""
        with self._store.talking():
            found = self._redis.hget(self._keys.used, chain)
        if found is None:
            return None
        names = ("batches", "items", "input_tokens", "output_tokens", "priced_items", "cost_nanos")
        return ChainUse(**dict(zip(names, map(int, found.split()), strict=True)))

    def active(self) -> list[str]:
        """Return the batches that are not committed, oldest first."""
        with self._store.talking():
            return list(self._redis.zrange(self._keys.active, 0, -1))

    def open_shards(self, batch_id: str) -> list[Shard]:
        """Return the shards that are published and not closed, in order."""
        keys = self._keys.batch(batch_id)
        with self._store.talking():
            numbers = sorted(int(shard) for shard in self._redis.smembers(keys.open))
            cuts = self._redis.hmget(keys.shards, numbers) if numbers else []
            per_slot = int(self._redis.hget(keys.meta, "items_per_slot") or 1)
        found = []
        for number, cut in zip(numbers, cuts, strict=True):
            if cut is not None:
                start, stop, per_task = map(int, cut.split())
                found.append(Shard(number, start, stop, per_task, per_slot))
        return found

    def shards(self, batch_id: str) -> list[Shard]:
        """Return every shard that was cut, in order."""
        keys = self._keys.batch(batch_id)
        with self._store.talking():
            cuts = self._redis.hgetall(keys.shards)
        found = []
        for number in sorted(map(int, cuts)):
            start, stop, per_task = map(int, cuts[str(number)].split())
            found.append(Shard(number, start, stop, per_task))
        return found

    def history(self, batch_id: str, index: int) -> list[Item]:
        """Return the outcomes of an item that retries have replaced, the oldest first.

        Raises:
            IndexError: the batch has no such item.
        """
        check_int("index", index, 0)
        history = self._keys.batch(batch_id).history(page_of(index))
        with reading(batch_id):
            with self._store.talking():
                found = self._redis.hget(history, str(index))
            if found is None and index >= (total := self.record(batch_id).request_counts.total):
                raise IndexError(f"index: the batch has {total} items, there is no item {index}")
            earlier = [] if found is None else decode(found)
            return [Item.model_validate({"index": index, **outcome}) for outcome in earlier]

    def complete(self, batch_id: str, shard: int) -> bool:
        """Return whether each item of a shard has an outcome, and its gather has not come yet."""
        keys = self._keys.batch(batch_id)
        with self._store.talking():
            cut = self._redis.hget(keys.shards, shard)
            settled = self._redis.hget(keys.settled, shard)
        if cut is None or settled is None or settled == "closed":
            return False
        start, stop, _ = map(int, cut.split())
        return int(settled) == stop - start

    def put_off(self, batch_id: str) -> set[int]:
        """Return the items that wait for their next attempt."""
        with self._store.talking():
            found = self._redis.zrange(self._keys.batch(batch_id).due, 0, -1)
        return {int(index) for index in found}

    def quiet_for(self, record: BatchRecord) -> float:
        """Return for how many seconds, by the server's clock, the batch has had no news."""
        last = self.last_event(record.id)
        since = int(last.split("-")[0]) / 1000
        started = (record.in_progress_at or record.created_at).timestamp()
        return self._store.now() - max(since, started)

    def queue_length(self, batch_id: str) -> int:
        """Return how many messages wait in the Celery queues that may have some of the batch's."""
        settings = self._store.settings
        _, lane = self._store.route(batch_id)
        with self._store.talking(), self._store.redis.pipeline(transaction=False) as pipe:
            # The queue of what batches begin with, the batch's own, and that of gathers.
            for queue in {settings.queues[0], settings.lane(lane), settings.lane(0)}:
                for priority in PRIORITY_STEPS:
                    pipe.llen(f"{queue}{PRIORITY_SEPARATOR}{priority}" if priority else queue)
            return sum(pipe.execute())


def _read(batch_id: str, meta: Any, running: Any, put_off: Any) -> BatchRecord | UnreadableBatch:
    try:
        return record_of(batch_id, meta, running, put_off)
    except UnreadableBatch as error:
        return error
