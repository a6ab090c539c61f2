"""Search and list batches by status and words (used by Flower and the command line).

No call reads a whole batch, an input or an outcome, and none writes. What it reads of a batch is
`meta`, `stats`, custom_ids, and how many `leases` and `due` items there are: a Redis user that may
read only those can show batches and never what is in them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from batchord.ledger.core.json_values import decode
from batchord.ledger.core.message_ids import is_batch_id
from batchord.ledger.errors import OtherFormat, UnknownBatch, UnreadableBatch
from batchord.ledger.models import BatchRecord, BatchStatus, Repair
from batchord.ledger.storage.batch_stats import Progress, progress_of
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.keys import page_of
from batchord.ledger.storage.mappers import reading, record_of

#: Batches that one search looks at; it says where to go on.
MOST_LOOKED_AT: Final = 2_000

#: Batches asked for in one round trip of a search.
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search so far."""

    batches: list[tuple[BatchRecord, Progress]]
    #: The batch behind which the next search goes on; None: there are no more.
    next: str | None
    #: Batches in the ledger, and those of them that have not ended.
    total: int
    active: int
    #: Batches that belong here, and that another version has written: they are not shown.
    others: int = 0


@dataclass(frozen=True, slots=True)
class _Filter:
    """The batches that a search wants."""

    #: The fields of a batch's `meta` that `fits` takes.
    FIELDS: ClassVar = ("status", "chain", "metadata", "failed")

    statuses: frozenset[BatchStatus]
    #: In lower case.
    text: str
    with_failures: bool

    @property
    def takes_all(self) -> bool:
        """Whether every sealed batch fits."""
        return not (self.statuses or self.text or self.with_failures)

    def fits(
        self, batch_id: str, status: Any, chain: str | None, metadata: str | None, failed: Any
    ) -> bool:
        """Return whether a batch with these fields is wanted; None: it lacks the field."""
        return (
            status not in (None, BatchStatus.VALIDATING)
            and (not self.statuses or status in self.statuses)
            and (not self.with_failures or int(failed or 0) > 0)
            and (not self.text or self.text in _words(batch_id, chain, metadata))
        )


class BatchSearch:
    """Looks at batches; it borrows the store's connection."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._keys = store.keys
        # The replies of redis-py are typed for sync and async clients at once; this one is sync.
        self._redis: Any = store.redis

    def of(self, batch_ids: Sequence[str]) -> list[tuple[BatchRecord, Progress]]:
        """Return these batches and how they go, in one round trip.

        Unknown ones are missing, and those that cannot be read: `doctor` tells of these.
        """
        found = self.look(batch_ids)
        return [one for one in found if one is not None and not isinstance(one, UnreadableBatch)]

    def one(self, batch_id: str) -> tuple[BatchRecord, Progress]:
        """Return a batch and how it goes.

        Raises:
            UnknownBatch: no batch has this id.
            UnreadableBatch: it is damaged.
        """
        [found] = self.look([batch_id]) if is_batch_id(batch_id) else [None]
        if found is None:
            raise UnknownBatch(batch_id)
        if isinstance(found, UnreadableBatch):
            raise found
        return found

    def look(
        self, batch_ids: Sequence[str]
    ) -> list[tuple[BatchRecord, Progress] | UnreadableBatch | None]:
        """Return what there is of each of these batches, in one round trip; None: it is unknown."""
        with self._store.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for batch_id in batch_ids:
                keys = self._keys.batch(batch_id)
                pipe.hgetall(keys.meta)
                pipe.zcard(keys.leases)
                pipe.zcard(keys.due)
                pipe.hgetall(keys.stats)
            (seconds, micros), *replies = self._store.replies(pipe)
        now = int(seconds) * 1000 + int(micros) // 1000
        return [
            _seen(batch_id, replies[4 * place : 4 * place + 4], now)
            for place, batch_id in enumerate(batch_ids)
        ]

    def find(
        self,
        *,
        limit: int,
        after: str | None = None,
        statuses: Collection[BatchStatus] = (),
        text: str = "",
        with_failures: bool = False,
    ) -> SearchResult:
        """Return up to `limit` sealed batches, newest first, those behind batch `after` if given.

        `statuses`: only these; without any, all. `text`: only those in whose id, chain or metadata
        it occurs, in any case. `with_failures`: only those with failed items. Looks at 2,000
        batches at most: there may be more behind `next`, also if it has found none.

        Raises:
            UnknownBatch: `after` names no batch.
        """
        live = bool(statuses) and not any(status.ended for status in statuses)
        index = self._keys.active if live else self._keys.batches
        start = self._behind(index, after)
        with self._store.talking(), self._store.redis.pipeline(transaction=False) as pipe:
            pipe.zcard(self._keys.batches)
            pipe.zcard(self._keys.active)
            total, active = pipe.execute()
        if is_batch_id(text):
            batches = self.of([text])
            return SearchResult(batches, None, total, active)
        fits = _Filter(frozenset(statuses), text.casefold(), with_failures)
        wanted, last, more = self._scan(index, start, limit, fits)
        found = self.look(wanted)
        return SearchResult(
            [one for one in found if isinstance(one, tuple)],
            last if more else None,
            total,
            active,
            sum(isinstance(one, OtherFormat) for one in found),
        )

    def _scan(
        self, index: str, start: int, limit: int, wanted: "_Filter"
    ) -> tuple[list[str], str | None, bool]:
        """Return the ids that match, the last id that was looked at, and whether more follow."""
        found: list[str] = []
        last, looked = None, 0
        size = limit if wanted.takes_all else _CHUNK
        while looked < MOST_LOOKED_AT:
            with self._store.talking():
                ids = self._redis.zrevrange(index, start + looked, start + looked + size)
            # One more is asked for than is looked at: whether there are any behind.
            for batch_id, fits in zip(ids, self._fit(ids[:size], wanted), strict=False):
                if fits and len(found) == limit:
                    return found, last, True
                last, looked = batch_id, looked + 1
                if fits:
                    found.append(batch_id)
            if len(ids) <= size:
                return found, last, False
            if len(found) == limit:
                break
        return found, last, True

    def _fit(self, ids: Sequence[str], wanted: "_Filter") -> list[bool]:
        with self._store.redis.pipeline(transaction=False) as pipe:
            for batch_id in ids:
                pipe.hmget(self._keys.batch(batch_id).meta, *_Filter.FIELDS)
            # A key that is no hash fits nothing, as one that is gone.
            replies = [
                (None,) * len(_Filter.FIELDS) if isinstance(reply, Exception) else reply
                for reply in self._store.replies(pipe)
            ]
        return [wanted.fits(each, *reply) for each, reply in zip(ids, replies, strict=True)]

    def _behind(self, index: str, after: str | None) -> int:
        """Return the position in the index behind the batch `after`."""
        if after is None:
            return 0
        if not is_batch_id(after):
            raise UnknownBatch(after)
        with self._store.talking():
            rank = self._redis.zrevrank(index, after)
            if rank is None and self._redis.zscore(self._keys.batches, after) is None:
                raise UnknownBatch(after)
        # It has ended since: its place among the live batches is unknown.
        return 0 if rank is None else int(rank) + 1

    def custom_ids(self, batch_id: str, indexes: Sequence[int]) -> dict[int, str]:
        """Return the custom_ids of these items, where they have any, in one round trip."""
        keys = self._keys.batch(batch_id)
        with self._store.talking(), self._store.redis.pipeline(transaction=False) as pipe:
            for index in indexes:
                pipe.hget(keys.ids(page_of(index)), str(index))
            found = pipe.execute()
        return {i: name for i, name in zip(indexes, found, strict=True) if name is not None}

    def repairs(self) -> dict[Repair, int]:
        """Return how many tasks the sweeps have sent again, by why."""
        with self._store.talking():
            found = self._redis.hgetall(self._keys.repairs)
        return {why: int(found.get(why, 0)) for why in Repair}


def _seen(
    batch_id: str, replies: Sequence[Any], now: int
) -> tuple[BatchRecord, Progress] | UnreadableBatch | None:
    meta, running, put_off, stats = replies
    if not meta:
        return None
    try:
        with reading(batch_id):
            record = record_of(batch_id, meta, running, put_off)
            return record, progress_of(record, stats, now)
    except UnreadableBatch as error:
        return error


def _words(batch_id: str, chain: str | None, metadata: str | None) -> str:
    try:
        pairs = decode(metadata or "{}").items()
    except (ValueError, AttributeError):
        pairs = []  # it is damaged, and found by its id and chain
    return " ".join([batch_id, chain or "", *(f"{k}={v}" for k, v in pairs)]).casefold()
