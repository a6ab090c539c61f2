"""A batch whose record is damaged costs no other batch anything."""

from collections.abc import Callable
from typing import Any

import pytest

from chains import register
from ledger.checkup import checkup
from ledger.errors import UnreadableBatch
from ledger.store import Store
from tests.conftest import Deploy

pytestmark = pytest.mark.timeout(60)

#: What has been done to `meta`, or to another key of the batch.
DAMAGES: dict[str, Callable[[Any, str], object]] = {
    "unknown status": lambda redis, meta: redis.hset(meta, "status", "hibernating"),
    "missing field": lambda redis, meta: redis.hdel(meta, "chain"),
    "garbled number": lambda redis, meta: redis.hset(meta, "total", "many"),
    "garbled JSON": lambda redis, meta: redis.hset(meta, "reason", "{"),
    "no hash": lambda redis, meta: (redis.delete(meta), redis.set(meta, "text")),
    "leases of another type": lambda redis, meta: redis.set(
        meta.replace(":meta", ":leases"), "text"
    ),
}


def test_damaged_batches_are_skipped_and_told_of(deploy: Deploy) -> None:
    deployment = deploy(sweep_interval=0.2)
    register("echo", lambda value: value, replace=True)
    submitted = {name: deployment.client.submit("echo", [1]) for name in DAMAGES}
    younger = deployment.client.submit("echo", [1, 2])
    deployment.lose_messages()
    store = Store(deployment.settings)
    for name, damage in DAMAGES.items():
        damage(deployment.redis, store.keys.batch(submitted[name].id).meta)

    # Only the sweep can bring its messages back.
    worker = deployment.start_worker()
    assert younger.wait(30).request_counts.succeeded == 2
    assert [record.id for record in deployment.client.list()] == [younger.id]
    told = [finding.what for finding in checkup(store) if "cannot be read" in finding.what]
    for name, batch in submitted.items():
        with pytest.raises(UnreadableBatch):
            batch.record()
        assert any(batch.id in what for what in told), name
        assert worker.log.count(f"batch skipped batch={batch.id}") == 1, name
    store.close()
    for batch in submitted.values():
        deployment.redis.delete(*deployment.keys_of(batch))
        store.forget(batch.id)
