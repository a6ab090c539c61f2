"""All transitions of batches.

`storage.keys` describes the keys, each transition is one script in `ledger/lua/`, and the clock is
always the server's. Batches are recorded in `storage.submission_store`, items are claimed and
settled in `storage.item_leases`, and batches are read in `storage.batch_reader`.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from batchord.chains.runtime.tracing import TRACEPARENT
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.core.sharding import MOST_PER_TASK, SHORT_ITEM, TASK_SECONDS, Shard
from batchord.ledger.models import ChainRecord, Repair
from batchord.ledger.needs import Needs, format_of
from batchord.ledger.settings import LANES
from batchord.ledger.storage.keys import SUMMED_IN_META, SUMMED_IN_STATS, page_of
from batchord.ledger.storage.submission_store import SubmissionStore

T = TypeVar("T")


class Route(NamedTuple):
    """How the messages of a batch travel."""

    priority: int
    lane: int
    #: Whether they go to the queue of those that need the same, as some workers lack it.
    apart: bool
    needs: Needs
    #: The context of the batch's submission, if it was traced.
    traceparent: str | None = None


#: The fields of `meta` that tell it.
_ROUTE: Final = (
    *("priority", "lane", "apart", "format", "chain", "chain_version"),
    TRACEPARENT,
)

#: Shards whose failed items are moved in one round trip.
_SHARDS_AT_ONCE: Final = 200
#: Live batches that are looked at to choose a new batch's lane.
LANES_LOOKED_AT: Final = 100


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    values = iter(values)
    while some := list(islice(values, size)):
        yield some


class BatchStore(SubmissionStore):
    """All writes to the ledger except those of running items."""

    # Publishing and gathering, shard by shard.

    def next_shard(self, batch_id: str) -> Shard | None:
        """Return the shard that the caller shall publish now, or None; one publisher at a time."""
        cut = self.transition(
            "next_shard",
            batch_id,
            slow_us=int(SHORT_ITEM * 1e6),
            task_us=int(TASK_SECONDS * 1e6),
            most_items_per_task=MOST_PER_TASK,
        )
        if not cut:
            return None
        number, start, stop, per_task, per_slot, again = map(int, cut)
        return Shard(number, start, stop, per_task, per_slot, bool(again))

    def shard_published(self, batch_id: str, shard: int) -> None:
        """Record that all messages of a shard are in the queue."""
        self.transition("shard_published", batch_id, shard=shard)

    def gather(self, batch_id: str, shard: int) -> int:
        """Close a shard whose items are all settled; return the unsettled items' count.

        -1: the batch or the shard is unknown.
        """
        return int(self.transition("gather", batch_id, shard=shard))

    def route(self, batch_id: str) -> Route:
        """Return how a batch's messages travel; with the last priority if it is gone."""
        with self.talking():
            found: Any = self.redis.hmget(self.keys.batch(batch_id).meta, _ROUTE)
        priority, lane, apart, format_, chain, version, traceparent = found
        needs = Needs.of(format_of(format_), chain or "", version)
        priority = 9 if priority is None else int(priority)
        return Route(priority, int(lane or 0), bool(apart), needs, traceparent)

    def quiet_lane(self) -> int:
        """Return the lane with the fewest of the newest live batches."""
        redis: Any = self.redis
        with self.talking():
            live = redis.zrevrange(self.keys.active, 0, LANES_LOOKED_AT - 1)
        with redis.pipeline(transaction=False) as pipe:
            for batch_id in live:
                pipe.hget(self.keys.batch(batch_id).meta, "lane")
            lanes = Counter(self.replies(pipe))
        return min(range(LANES), key=lambda lane: lanes[str(lane)])

    def commit(self, batch_id: str, *, total: int, key: str | None) -> bool:
        """Commit a batch whose items all have an outcome; True for the only caller that did it."""
        done = int(
            self.transition(
                "commit",
                batch_id,
                more_keys=self._lasting(batch_id, total, key),
                ttl_s=self.settings.result_ttl,
                of_meta=len(SUMMED_IN_META),
                records=[*SUMMED_IN_META, *SUMMED_IN_STATS],
            )
        )
        if done:
            crash_point("after-commit")
        return done > 0

    def reopen(self, batch_id: str, *, total: int, key: str | None, token: str = "") -> bool:
        """Reopen a completed batch, so that failed items can run again; False if not completed.

        `token`: the caller's own, for this call and `retry_shards`. With the same token both may be
        repeated.
        """
        lasting = self._lasting(batch_id, total, key)
        return bool(self.transition("retry_begin", batch_id, more_keys=lasting, token=token))

    def retry_shards(
        self, batch_id: str, shards: Iterable[Shard], codes: Collection[str] | None, token: str = ""
    ) -> Iterator[int]:
        """Queue the failed items of these shards again; yield their number, shard by shard.

        -1: `reopen` with this token is not in force.
        """
        for some in _chunks(shards, _SHARDS_AT_ONCE):
            calls = [
                self.call(
                    "retry_shard",
                    batch_id,
                    page=page_of(shard.start),
                    shard=shard.number,
                    token=token,
                    records=codes or (),
                )
                for shard in some
            ]
            yield from map(int, self.run_all(calls))

    def retry_moved(self, batch_id: str, token: str) -> int:
        """Count the items that `retry_shards` has moved since `reopen` with this token.

        -1: the token is not in force.
        """
        with self.talking():
            found: Any = self.redis.hmget(self.keys.batch(batch_id).meta, "retrier", "retry_moved")
        return int(found[1] or 0) if found[0] == token else -1

    def purge(self, batch_id: str, *, total: int, key: str | None) -> bool:
        """Delete an ended batch, with all its keys; False if it has not ended.

        True as well if no batch has this id any more: an earlier answer may have been lost.
        """
        with self.talking():
            ends = int(str(self.redis.hget(self.keys.batch(batch_id).meta, "ends") or 0))
        every = self.keys.batch(batch_id).every(total)
        gone = int(self.transition("purge", batch_id, more_keys=every))
        if gone == 0:
            return False
        if key is not None:
            self.free_key(key, batch_id)
        owed = ["on_complete", *range(1, ends + 1)]
        with self.talking():
            self.redis.zrem(self.keys.outbox_due, *(f"{batch_id} {what}" for what in owed))
        # Last: the sweep removes an entry without a batch; a batch without an entry would be lost.
        self.forget(batch_id)
        return True

    def announce(self, chains: Sequence[ChainRecord], tasks: Sequence[str] = ()) -> None:
        """Announce to producers the workers' chains, with their schemas, and users' tasks."""
        with self.talking(), self.redis.pipeline(transaction=False) as pipe:
            if chains:
                records: Mapping[Any, Any] = {each.name: each.model_dump_json() for each in chains}
                pipe.hset(self.keys.chains, mapping=records)
            if tasks:
                pipe.sadd(self.keys.tasks, *tasks)
            pipe.execute()

    # The sweep.

    def take_turn(self, owner: str) -> bool:
        """Take the sweep's lock for this interval; return whether the caller got it."""
        with self.talking():
            return bool(
                self.redis.set(
                    self.keys.sweep, owner, nx=True, px=int(self.settings.sweep_interval * 1000)
                )
            )

    def forget_expired(self, *, limit: int = 500) -> None:
        """Remove expired batches from the index; look at the `limit` oldest ones."""
        # Younger batches exist, or are being opened.
        until = int(1000 * (self.now() - self.settings.result_ttl))
        with self.talking():
            found_ids = self.redis.zrangebyscore(self.keys.batches, 0, until, start=0, num=limit)
            ids = [str(each) for each in found_ids]
            with self.redis.pipeline(transaction=False) as pipe:
                for batch_id in ids:
                    pipe.exists(self.keys.batch(batch_id).meta)
                gone = [each for each, found in zip(ids, pipe.execute(), strict=True) if not found]
            if gone:
                self.redis.zrem(self.keys.batches, *gone)

    def lapsed(self, batch_id: str, *, limit: int) -> list[int]:
        """Take items whose lease has expired without an outcome."""
        return [int(index) for index in self.transition("lapsed", batch_id, limit=limit)]

    def come_due(self, batch_id: str, *, limit: int) -> list[int]:
        """Take deferred items that are due."""
        return [int(index) for index in self.transition("come_due", batch_id, limit=limit)]

    def overtaken(self, batch_id: str, shard: Shard) -> list[int]:
        """Return unclaimed items of an open shard that are older than claimed ones."""
        page = page_of(shard.start)
        found = self.transition("overtaken", batch_id, page=page, shard=shard.number)
        return [int(index) for index in found]

    def count_repairs(self, why: Repair, count: int) -> None:
        """Count tasks that the sweep has sent again, by reason."""
        with self.talking():
            self.redis.hincrby(self.keys.repairs, why, count)

    def note(self, batch_id: str, status: str) -> None:
        """Add an event to a batch's stream; for the sweep it counts as progress."""
        self.transition("note", batch_id, status=status)
