"""All transitions of batches.

`storage.keys` describes the keys, each transition is one script in `ledger/lua/`, and the clock is
always the server's. Items are claimed and settled in `storage.item_leases`; batches are read in
`batchord.ledger.storage.batch_reader`.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from batchord.ledger.core.compression import pack
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.core.sharding import MOST_PER_TASK, SHORT_ITEM, TASK_SECONDS, Cut, Shard
from batchord.ledger.errors import BatchAborted, InputsLost, SubmitRefused
from batchord.ledger.models import ChainRecord, Repair
from batchord.ledger.settings import LANES, Settings
from batchord.ledger.storage.connection import PROMPT, Call, RedisConnection
from batchord.ledger.storage.keys import (
    EVENTS_KEPT,
    PAGE_SIZE,
    SUMMED_IN_META,
    SUMMED_IN_STATS,
    Keys,
    page_of,
)

T = TypeVar("T")

#: Shards whose failed items are moved in one round trip.
_SHARDS_AT_ONCE: Final = 200
#: Live batches that are looked at to choose a new batch's lane.
LANES_LOOKED_AT: Final = 100


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    values = iter(values)
    while some := list(islice(values, size)):
        yield some


class BatchStore(RedisConnection):
    """All writes to the ledger except those of running items."""

    def __init__(self, settings: Settings, *, retries: int = PROMPT) -> None:
        super().__init__(settings, retries=retries)
        self.keys = Keys(settings.namespace)

    # Submitting: open -> append* -> seal, or abort; `renew` meanwhile.

    def open(
        self,
        batch_id: str,
        fields: Mapping[str, str],
        *,
        key: str | None,
        notices: Mapping[str, str] | None = None,
    ) -> bool:
        """Open a batch: enter it into the indexes, to expire by itself unless it is sealed.

        `notices`: its outbox entries, as `storage.outbox` names them. Return False, and write
        nothing, if its idempotency key names another batch by now.
        """
        keys = self.keys.batch(batch_id)
        names = [keys.meta, keys.notices, self.keys.active, self.keys.batches, *self._named(key)]
        owed = notices or {}
        flat = [part for pair in (*owed.items(), *fields.items()) for part in pair]
        ttl = self.settings.unsealed_ttl
        return bool(self.run("open", names, batch_id, ttl, len(owed), *flat))

    @property
    def _lease_ms(self) -> int:
        """Milliseconds after which another process takes over from a silent publisher."""
        return int(self.settings.lease * 1000)

    def append(
        self, batch_id: str, start: int, inputs: Sequence[str], custom_ids: Sequence[str] | None
    ) -> int:
        """Record the inputs from index `start` on, which must lie in one page.

        Return the next index. If Redis has lost earlier inputs, record nothing and return the first
        lost index, which is before `start`.

        Raises:
            SubmitRefused: a custom_id came before.
            BatchAborted: the batch is not open any more.
        """
        keys, page = self.keys.batch(batch_id), page_of(start)
        args: list[str | int | bytes] = [self.settings.unsealed_ttl, int(custom_ids is not None)]
        for offset, value in enumerate(inputs):
            args += [start + offset, pack(value)]
            if custom_ids is not None:
                args.append(custom_ids[offset])
        names = [keys.meta, keys.inputs(page), keys.ids(page), keys.custom_ids]
        answer, _, what = str(self.run("append", names, *args)).partition(" ")
        match answer:
            case "ok":
                return start + len(inputs)
            case "missing":
                return int(what)
            case "repeated":
                raise SubmitRefused(f"custom_id {what!r} occurs twice: make them unique")
            case _:
                raise BatchAborted(
                    f"batch {batch_id} is gone before it was sealed: its producer was silent for "
                    f"{self.settings.submit_timeout:g} s (BATCHORD_SUBMIT_TIMEOUT), or Redis lost "
                    "its data; submit again"
                )

    def renew(self, batch_id: str, *, total: int, key: str | None) -> bool:
        """Record the producer's heartbeat, and keep the batch's keys; False if it is not open."""
        names = [*self.keys.batch(batch_id).every(total), *self._named(key)]
        return bool(self.run("renew", names, self.settings.unsealed_ttl))

    def seal(
        self,
        batch_id: str,
        *,
        total: int,
        cut: Cut,
        key: str | None,
        window: float | None = None,
        with_ids: bool = False,
        notices: int = 0,
        digest: str | None = None,
    ) -> int:
        """Seal the batch: from here on each of its items gets exactly one outcome.

        `key`: its idempotency key, which lives as long as the batch. `window`: seconds after which
        items without an outcome expire. `with_ids`, `notices`: whether its items have custom_ids,
        and the number of its outbox entries; seal.lua checks that both are there. `digest`: of its
        inputs, to compare with those that come under the same key later.

        Return `total`, or the index of the first input that Redis has lost: then it is not sealed.

        Raises:
            InputsLost: data is missing that a server does not lose by going back.
            BatchAborted: the batch is not open any more, or its key names another batch.
        """
        keys, every = self.keys.batch(batch_id), self.keys.batch(batch_id).every(total)
        pages = [
            name
            for page in range(page_of(total - 1) + 1)
            for name in (keys.inputs(page), keys.ids(page))
        ]
        names = [
            keys.meta,
            keys.custom_ids,
            self.keys.active,
            self.keys.batches,
            keys.notices,
            *pages,
        ]
        known = set(names)
        names += [name for name in every if name not in known]
        fields = {**cut.fields(), **({} if digest is None else {"inputs_digest": digest})}
        flat = [part for pair in fields.items() for part in pair]
        window_ms = 0 if window is None else int(window * 1000)
        checks = [PAGE_SIZE, int(with_ids), notices, int(key is not None)]
        args = [batch_id, total, window_ms, *checks, *flat]
        answer, _, what = str(self.run("seal", [*names, *self._named(key)], *args)).partition(" ")
        match answer:
            case "ok":
                return total
            case "missing":
                return int(what)
            case "lost":
                raise InputsLost(batch_id, what)
            case "taken":
                raise BatchAborted(f"the key of batch {batch_id} names {what} by now: submit again")
            case _:
                raise BatchAborted(f"batch {batch_id} is gone before it was sealed: submit again")

    def abort(self, batch_id: str, *, silent: float = 0.0) -> bool:
        """Delete a batch that was never sealed, with all its keys; True if it is gone now.

        With `silent`, only if its producer has sent no heartbeat for that many seconds.
        """
        keys = self.keys.batch(batch_id)
        with self.talking():
            written = self.redis.hget(keys.meta, "written")
        gone = bool(self.run("abort", keys.every(int(written or 0)), int(silent * 1000)))
        if gone:
            self.forget(batch_id)
        return gone

    def forget(self, batch_id: str) -> None:
        """Remove a deleted batch from the indexes."""
        names = [self.keys.batch(batch_id).meta, self.keys.active, self.keys.batches]
        self.run("forget", names, batch_id)

    # Idempotency: the key names one batch for as long as that batch is readable.

    def take_key(self, key: str, batch_id: str) -> str:
        """Return the batch that the idempotency key names, which is `batch_id` if it was free."""
        name = self.keys.idempotency(key)
        with self.talking():
            self.redis.set(name, batch_id, nx=True, ex=self.settings.unsealed_ttl)
            return str(self.redis.get(name) or batch_id)

    def free_key(self, key: str, batch_id: str) -> None:
        """Forget the idempotency key if it still names `batch_id`, and that batch is gone."""
        names = [self.keys.idempotency(key), self.keys.batch(batch_id).meta]
        self.run("free_key", names, batch_id)

    # Publishing and gathering, shard by shard.

    def next_shard(self, batch_id: str) -> Shard | None:
        """Return the shard that the caller shall publish now, or None; one publisher at a time."""
        keys = self.keys.batch(batch_id)
        cut = self.run(
            "next_shard",
            [keys.meta, keys.shards, keys.again],
            self._lease_ms,
            PAGE_SIZE,
            int(SHORT_ITEM * 1e6),
            int(TASK_SECONDS * 1e6),
            MOST_PER_TASK,
        )
        if not cut:
            return None
        number, start, stop, per_task, per_slot, again = map(int, cut)
        return Shard(number, start, stop, per_task, per_slot, bool(again))

    def shard_published(self, batch_id: str, shard: int) -> None:
        """Record that all messages of a shard are in the queue."""
        keys = self.keys.batch(batch_id)
        names = [keys.meta, keys.shards, keys.settled, keys.open, keys.again]
        self.run("shard_published", names, shard)

    def gather(self, batch_id: str, shard: int) -> int:
        """Close a shard whose items are all settled; return the unsettled items' count.

        -1: the batch or the shard is unknown.
        """
        keys = self.keys.batch(batch_id)
        names = [keys.meta, keys.shards, keys.settled, keys.open, keys.events]
        return int(self.run("gather", names, shard, EVENTS_KEPT))

    def route(self, batch_id: str) -> tuple[int, int]:
        """Return the priority and the lane of a batch's messages; last priority if it is gone."""
        with self.talking():
            found: Any = self.redis.hmget(self.keys.batch(batch_id).meta, "priority", "lane")
        priority, lane = found
        return 9 if priority is None else int(priority), int(lane or 0)

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
        active, *rest = self._lasting(batch_id, total, key)
        names = [active, self.keys.used, self.keys.notices, self.keys.totals, *rest]
        summed = (*SUMMED_IN_META, *SUMMED_IN_STATS)
        ttl, n = self.settings.result_ttl, len(SUMMED_IN_META)
        done = int(self.run("commit", names, batch_id, ttl, EVENTS_KEPT, n, *summed))
        if done:
            crash_point("after-commit")
        return done > 0

    def reopen(self, batch_id: str, *, total: int, key: str | None, token: str = "") -> bool:
        """Reopen a completed batch, so that failed items can run again; False if not completed.

        `token`: the caller's own, for this call and `retry_shards`. With the same token both may be
        repeated.
        """
        names = self._lasting(batch_id, total, key)
        return bool(self.run("retry_begin", names, batch_id, self._lease_ms, EVENTS_KEPT, token))

    def _lasting(self, batch_id: str, total: int, key: str | None) -> list[str]:
        """Return the index of live batches and all keys that live as long as the batch."""
        keys = self.keys.batch(batch_id)
        first = [keys.meta, keys.events, keys.notices, keys.stats]
        rest = [name for name in keys.every(total) if name not in first]
        return [self.keys.active, *first, *rest, *self._named(key)]

    def _named(self, key: str | None) -> list[str]:
        """Return the key of the idempotency key, if there is an idempotency key."""
        return [] if key is None else [self.keys.idempotency(key)]

    def retry_shards(
        self, batch_id: str, shards: Iterable[Shard], codes: Collection[str] | None, token: str = ""
    ) -> Iterator[int]:
        """Queue the failed items of these shards again; yield their number, shard by shard.

        -1: `reopen` with this token is not in force.
        """
        keys = self.keys.batch(batch_id)
        rest: list[str | int] = [self._lease_ms, token, *(codes or ())]
        for some in _chunks(shards, _SHARDS_AT_ONCE):
            calls = []
            for shard in some:
                page = page_of(shard.start)
                names = [keys.meta, keys.outcomes(page), keys.history(page)]
                names += [keys.shards, keys.settled, keys.again, keys.kept, keys.stats]
                calls.append(Call("retry_shard", names, [shard.number, *rest]))
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
        gone = int(self.run("purge", self.keys.batch(batch_id).every(total)))
        if gone == 0:
            return False
        if key is not None:
            self.free_key(key, batch_id)
        owed = ["on_complete", *range(1, ends + 1)]
        with self.talking():
            self.redis.zrem(self.keys.notices, *(f"{batch_id} {what}" for what in owed))
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
        leases = self.keys.batch(batch_id).leases
        return [int(index) for index in self.run("lapsed", [leases], limit)]

    def come_due(self, batch_id: str, *, limit: int) -> list[int]:
        """Take deferred items that are due."""
        due = self.keys.batch(batch_id).due
        return [int(index) for index in self.run("come_due", [due], limit)]

    def overtaken(self, batch_id: str, shard: Shard) -> list[int]:
        """Return unclaimed items of an open shard that are older than claimed ones."""
        keys, page = self.keys.batch(batch_id), page_of(shard.start)
        names = [keys.meta, keys.outcomes(page), keys.runs, keys.shards, keys.settled, keys.due]
        found = self.run("overtaken", names, shard.number, self._lease_ms)
        return [int(index) for index in found]

    def count_repairs(self, why: Repair, count: int) -> None:
        """Count tasks that the sweep has sent again, by reason."""
        with self.talking():
            self.redis.hincrby(self.keys.repairs, why, count)

    def note(self, batch_id: str, status: str) -> None:
        """Add an event to a batch's stream; for the sweep it counts as progress."""
        keys = self.keys.batch(batch_id)
        self.run("note", [keys.meta, keys.events], EVENTS_KEPT, status)
