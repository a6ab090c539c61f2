"""Reading what is published of batches: shards, queues and deferred items."""

from batchord.ledger.core.message_ids import lists_of
from batchord.ledger.core.sharding import Shard
from batchord.ledger.storage.ledger_reader import LedgerReader


class ShardReader(LedgerReader):
    """Answers about the shards of a batch, and what waits in its queues."""

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

    def queue_length(self, batch_id: str) -> int:
        """Return how many messages wait in the Celery queues that may have some of the batch's."""
        settings = self._store.settings
        route = self._store.route(batch_id)
        apart = route.needs.queue(settings.queue)
        with self._store.talking(), self._store.redis.pipeline(transaction=False) as pipe:
            # The queue of what batches begin with, the batch's own, that of gathers, and that of
            # what workers have put apart.
            for queue in {settings.queues[0], settings.lane(route.lane), settings.lane(0), apart}:
                for name in lists_of(queue):
                    pipe.llen(name)
            return sum(pipe.execute())
