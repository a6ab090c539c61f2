"""Damages to the record of a batch: a table, to which the next damage is a line."""

from collections.abc import Callable
from typing import Any, Final

from batchord.ledger.storage.keys import BatchKeys

Damage = Callable[[Any, BatchKeys], object]


def _text(redis: Any, key: str) -> None:
    redis.delete(key)
    redis.set(key, "text")


#: What has been done to the keys of a batch, by someone else or by a later version.
DAMAGES: Final[dict[str, Damage]] = {
    "unknown status": lambda redis, keys: redis.hset(keys.meta, "status", "hibernating"),
    "missing field": lambda redis, keys: redis.hdel(keys.meta, "chain"),
    "garbled number": lambda redis, keys: redis.hset(keys.meta, "total", "many"),
    "garbled lane": lambda redis, keys: redis.hset(keys.meta, mapping={"lane": "x", "total": ""}),
    "garbled JSON": lambda redis, keys: redis.hset(keys.meta, "reason", "{"),
    "garbled metadata": lambda redis, keys: redis.hset(keys.meta, "metadata", "[1"),
    "meta is no hash": lambda redis, keys: _text(redis, keys.meta),
    "leases of another type": lambda redis, keys: _text(redis, keys.leases),
}

#: Those that leave the record readable, and stop a script or a statistic all the same.
DEEPER: Final[dict[str, Damage]] = {
    "garbled statistics": lambda redis, keys: redis.hset(keys.stats, "codes", "{"),
    "statistics of another type": lambda redis, keys: _text(redis, keys.stats),
    "garbled start": lambda redis, keys: redis.hset(keys.runs, "2", "nobody"),
    "starts of another type": lambda redis, keys: _text(redis, keys.runs),
    "outcomes of another type": lambda redis, keys: _text(redis, keys.outcomes(0)),
    "inputs of another type": lambda redis, keys: _text(redis, keys.inputs(0)),
    "garbled head of an input": lambda redis, keys: redis.hset(keys.inputs(0), "0", "#{\n1"),
    "custom_ids of another type": lambda redis, keys: _text(redis, keys.ids(0)),
    "kept answers of another type": lambda redis, keys: _text(redis, keys.kept),
    "garbled usage": lambda redis, keys: redis.hset(keys.kept, "0.usage", "{"),
    "garbled count of a shard": lambda redis, keys: redis.hset(keys.settled, "0", "many"),
    "shards of another type": lambda redis, keys: _text(redis, keys.shards),
}
