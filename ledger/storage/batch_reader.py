"""Reading the ledger: batches, pages of items, completion order, and what the sweep looks for.

It borrows the store's connection and writes nothing, but for index entries whose batch is gone.
"""

import logging
from collections.abc import Sequence
from typing import Any

from batchord.ledger.core.arguments import check_int
from batchord.ledger.core.json_values import decode
from batchord.ledger.core.message_ids import is_batch_id
from batchord.ledger.errors import UnknownBatch, UnreadableBatch
from batchord.ledger.models import BatchRecord, BatchStatus, Item
from batchord.ledger.storage.batch_search import BatchSearch
from batchord.ledger.storage.batch_stats import Progress
from batchord.ledger.storage.chain_reader import ChainReader
from batchord.ledger.storage.event_reader import EventReader
from batchord.ledger.storage.fleet import Fleet
from batchord.ledger.storage.fleet_store import FleetStore
from batchord.ledger.storage.item_reader import ItemReader
from batchord.ledger.storage.keys import page_of
from batchord.ledger.storage.mappers import check_format, reading, record_of
from batchord.ledger.storage.shard_reader import ShardReader

logger = logging.getLogger(__name__)


class BatchReader(ItemReader, EventReader, ShardReader, ChainReader):
    """Answers about batches and items as the ledger has them now."""

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

    def look(self, batch_ids: Sequence[str]) -> list[BatchRecord | UnreadableBatch | None]:
        """Return what there is of each of these batches, in one round trip; None: it is unknown."""
        return self._found(batch_ids) if batch_ids else []

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
        """Return only the status, in O(1).

        Raises:
            UnknownBatch: no batch has this id.
            OtherFormat: another version has written it.
        """
        with reading(batch_id):
            with self._store.talking():
                fields = ("status", "format")
                status, format_ = self._redis.hmget(self._keys.batch(batch_id).meta, fields)
            if status is None:
                raise UnknownBatch(batch_id)
            check_format(batch_id, format_)
            return BatchStatus(status)

    def spec(self, batch_id: str) -> str | None:
        """Return the chain that the batch has recorded as data, as JSON; None: it has none."""
        with reading(batch_id), self._store.talking():
            found: str | None = self._redis.hget(self._keys.batch(batch_id).meta, "spec")
        return found

    def fields(self, batch_id: str) -> dict[str, str]:
        """Return all fields of the batch's `meta`, as they are recorded."""
        with reading(batch_id), self._store.talking():
            found: dict[str, str] = self._redis.hgetall(self._keys.batch(batch_id).meta)
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

    def fleet(self) -> Fleet:
        """Return the workers that are alive."""
        return FleetStore(self._store).read()

    def active(self) -> list[str]:
        """Return the batches that are not committed, oldest first."""
        with self._store.talking():
            return list(self._redis.zrange(self._keys.active, 0, -1))

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


def _read(batch_id: str, meta: Any, running: Any, put_off: Any) -> BatchRecord | UnreadableBatch:
    try:
        return record_of(batch_id, meta, running, put_off)
    except UnreadableBatch as error:
        return error
