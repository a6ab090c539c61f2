"""A batch whose record is damaged costs no other batch anything, anyone who reads them."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from prometheus_client import REGISTRY

from batchord.chains import register
from batchord.ledger.errors import UnreadableBatch
from batchord.ledger.lifecycle.diagnostics import checkup
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.ledger.settings import LANES
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_search import BatchSearch
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.chain_totals import totals
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import ClaimRequest
from batchord.producer import Batch
from batchord.worker.flower.metrics import BatchMetrics
from batchord.worker.flower.queries import Queries
from tests.conftest import Deploy
from tests.ledger.test_claims import settlement
from tests.support.damages import DAMAGES, DEEPER
from tests.support.harness import Deployment, wait_until
from tests.support.webhook_receiver import SECRET, Receiver

pytestmark = pytest.mark.timeout(60)


@dataclass
class Bench:
    """A batch of each damage, and a sound one before and behind all of them."""

    deployment: Deployment
    store: BatchStore
    damaged: dict[str, Batch]
    older: Batch
    younger: Batch

    @property
    def sound(self) -> set[str]:
        return {self.older.id, self.younger.id}

    @property
    def unreadable(self) -> set[str]:
        return {batch.id for name, batch in self.damaged.items() if name in DAMAGES}


@pytest.fixture(scope="module")
def bench(deploy_for_module: Deploy) -> Iterator[Bench]:
    deployment = deploy_for_module()
    register("echo", lambda value: value, replace=True)

    def submit() -> Batch:
        return deployment.client.submit("echo", [1, 2, 3], metadata={"team": "sound"})

    older = submit()
    damaged = {name: submit() for name in DAMAGES | DEEPER}
    bench = Bench(deployment, BatchStore(deployment.settings), damaged, older, submit())
    exchange = ItemLeases(bench.store)
    exchange.swap(
        [], [ClaimRequest(batch_id=older.id, index=index, token="one") for index in (0, 1)]
    )
    exchange.swap([settlement(older.id, "one", 1)], [])
    for name, damage in (DAMAGES | DEEPER).items():
        damage(deployment.redis, bench.store.keys.batch(damaged[name].id))
    yield bench
    _delete(bench.deployment, bench.store, damaged.values())
    for batch in (older, bench.younger):
        batch.cancel()
    bench.store.close()


def _delete(deployment: Deployment, store: BatchStore, batches: Any) -> None:
    for batch in batches:
        deployment.redis.delete(*deployment.keys_of(batch))
        store.forget(batch.id)


def _list(bench: Bench) -> None:
    listed = {record.id for record in bench.deployment.client.list(limit=100)}
    assert listed >= bench.sound
    assert not listed & bench.unreadable


def _pages(bench: Bench) -> None:
    client, seen, after = bench.deployment.client, [], None
    while page := client.list(limit=1, after=after):
        seen.append(page[0].id)
        after = page[0].id
    assert seen == [record.id for record in client.list(limit=100)]


def _ended_before(bench: Bench) -> None:
    assert bench.deployment.client.ended_before(datetime.now(UTC) - timedelta(days=1)) == []


def _search(**query: Any) -> Callable[[Bench], None]:
    def search(bench: Bench) -> None:
        found = BatchSearch(bench.store).find(limit=100, **query)
        assert {record.id for record, _ in found.batches} >= bench.sound

    return search


def _totals(bench: Bench) -> None:
    found = totals(bench.store, BatchReader(bench.store).active())["echo"]
    assert found.outcomes[ItemStatus.SUCCEEDED] == 1


def _metrics(bench: Bench) -> None:
    metrics = BatchMetrics(Queries(bench.deployment.client._app, bench.deployment.settings))
    try:
        metrics._look_at_all()
        found = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in metrics.collect()
            for sample in family.samples
        }
    finally:
        REGISTRY.unregister(metrics)
    assert found["batchord_up",] == 1
    told = {each.batch_id for each in BatchReader(bench.store).unreadable()}
    assert found["batchord_unreadable_batches",] >= len(told) == len(DAMAGES)
    assert found["batchord_items", "echo", "running"] >= 1
    assert found["batchord_outcomes_total", "echo", "succeeded"] == 1


def _doctor(bench: Bench) -> None:
    told = [finding.what for finding in checkup(bench.store) if "cannot be read" in finding.what]
    assert told[0] == f"{len(DAMAGES)} batches that have not ended cannot be read"
    for batch_id in bench.unreadable:
        assert sum(batch_id in what for what in told) == 1
    assert not any(batch_id in what for batch_id in bench.sound for what in told)


def _submit(bench: Bench) -> None:
    assert bench.store.quiet_lane() in range(LANES)
    batch = bench.deployment.client.submit("echo", [1])
    assert batch.cancel() is BatchStatus.CANCELLED


def _stopping(bench: Bench) -> None:
    # An item of it runs.
    assert bench.younger.record().status is BatchStatus.IN_PROGRESS
    stopped = bench.deployment.client.submit("echo", [1])
    exchange = ItemLeases(bench.store)
    exchange.swap([], [ClaimRequest(batch_id=stopped.id, index=0, token="one")])
    assert stopped.cancel() is BatchStatus.CANCELLING
    every = [batch.id for batch in (*bench.damaged.values(), stopped, bench.younger)]
    assert exchange.stopping(every) == {stopped.id: ItemStatus.CANCELLED}
    exchange.release([ClaimRequest(batch_id=stopped.id, index=0, token="one")])
    assert stopped.cancel() is BatchStatus.CANCELLED


def _renew(bench: Bench) -> None:
    held = {batch.id: {1: "one"} for batch in bench.damaged.values()} | {bench.older.id: {1: "one"}}
    leases = bench.store.keys.batch(bench.older.id).leases
    before = bench.deployment.redis.zscore(leases, "1")
    time.sleep(0.002)
    assert ItemLeases(bench.store).beat_all(held)[bench.older.id] == []
    assert bench.deployment.redis.zscore(leases, "1") > before


def _events(bench: Bench) -> None:
    places = BatchReader(bench.store).last_events([*bench.unreadable, bench.younger.id])
    assert places[bench.younger.id] == BatchReader(bench.store).last_event(bench.younger.id)


def _itself(bench: Bench) -> None:
    """Questions about the damaged ones themselves are answered, or raise `UnreadableBatch`."""
    for name, batch in bench.damaged.items():
        for ask in (
            batch.record,
            batch.progress,
            lambda batch=batch: batch.status,
            lambda batch=batch: list(batch.items()),
            lambda batch=batch: batch.history(0),
            lambda batch=batch: batch.wait(0),
        ):
            with suppress(UnreadableBatch, TimeoutError):
                ask()
        if name in DAMAGES:
            for ask in (batch.record, batch.progress):
                with pytest.raises(UnreadableBatch):
                    ask()


READERS: Final[dict[str, Callable[[Bench], None]]] = {
    "list": _list,
    "page by page": _pages,
    "those that ended before": _ended_before,
    "Flower's list": _search(),
    "search by text": _search(text="team=sound"),
    "search by status": _search(statuses={BatchStatus.IN_PROGRESS}),
    "counters by chain": _totals,
    "metrics": _metrics,
    "doctor": _doctor,
    "the lane of a new batch": _submit,
    "which batches are stopping": _stopping,
    "renewal of leases": _renew,
    "where events stand": _events,
    "the batch itself": _itself,
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_of_many_batches_reads_the_sound_ones(bench: Bench, name: str) -> None:
    READERS[name](bench)


def test_the_sweep_skips_damaged_batches_and_says_so_once(deploy: Deploy) -> None:
    deployment = deploy(sweep_interval=0.2)
    register("echo", lambda value: value, replace=True)
    damaged = {name: deployment.client.submit("echo", [1]) for name in DAMAGES}
    younger = deployment.client.submit("echo", [1, 2])
    deployment.lose_messages()
    store = BatchStore(deployment.settings)
    for name, damage in DAMAGES.items():
        damage(deployment.redis, store.keys.batch(damaged[name].id))

    # Only the sweep can bring its messages back.
    worker = deployment.start_worker()
    assert younger.wait(30).request_counts.succeeded == 2
    for name, batch in damaged.items():
        assert worker.log.count(f"batch skipped batch={batch.id}") == 1, name
    _delete(deployment, store, damaged.values())
    store.close()


#: What has been done to what a batch that has ended owes to others.
NOTICES: Final[dict[str, Callable[[Any, BatchStore, str], object]]] = {
    "of another type": lambda redis, store, id_: _text(redis, store.keys.batch(id_).outbox),
    "garbled batch": lambda redis, store, id_: redis.hset(
        store.keys.batch(id_).outbox, mapping={"1": "{"}
    ),
    "batch of a later version": lambda redis, store, id_: redis.hset(
        store.keys.batch(id_).outbox, mapping={"1": '["status", "hibernating"]'}
    ),
    "garbled tries": lambda redis, store, id_: redis.hset(
        store.keys.batch(id_).outbox, mapping={"1.tries": "many"}
    ),
    "member without a batch": lambda redis, store, id_: redis.zadd(
        store.keys.outbox_due, {"nonsense": 0}
    ),
    "callback of another type": lambda redis, store, id_: (
        redis.zadd(store.keys.outbox_due, {f"{id_} on_complete": 0}),
        _text(redis, store.keys.batch(id_).outbox),
    ),
}


def _text(redis: Any, key: str) -> object:
    redis.delete(key)
    return redis.set(key, "text", ex=60)


def test_a_damaged_outbox_entry_keeps_no_other_from_being_told(
    deploy: Deploy, tmp_path: Path
) -> None:
    authority, ca = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with Receiver(authority) as receiver:
        deployment = deploy(sweep_interval=0.1, webhook_hosts=(receiver.place,))
        register("echo", lambda value: value, replace=True)
        store = BatchStore(deployment.settings)
        ended = []
        for _ in range(len(NOTICES) + 1):
            batch = deployment.client.submit("echo", [1], webhook=receiver.url("told"))
            assert batch.cancel() is BatchStatus.CANCELLED
            ended.append(batch)
        *damaged, sound = ended
        for damage, batch in zip(NOTICES.values(), damaged, strict=True):
            damage(deployment.redis, store, batch.id)
        env = {
            "BATCHORD_WEBHOOK_HOSTS": receiver.place,
            "BATCHORD_WEBHOOK_SECRET": SECRET,
            "BATCHORD_WEBHOOK_ALLOW_LOOPBACK": "true",
            "SSL_CERT_FILE": str(ca),
        }
        worker = deployment.start_worker(env=env)
        told = receiver.received["told"]
        wait_until(lambda: sound.id in {one.id[:-2] for one in told}, what="the sound one is told")
        # Once each, and its next look is minutes away.
        time.sleep(0.5)
        assert [one.id for one in told].count(f"{sound.id}-1") == 1
        for member in (f"{damaged[0].id} 1", "nonsense"):
            assert worker.log.count(f"outbox entry put off '{member}'") == 1
        worker.kill()
        deployment.redis.delete(store.keys.outbox_due)
        store.close()


def test_who_waits_for_a_sound_batch_hears_nothing_of_a_damaged_one(
    deployment: Deployment,
) -> None:
    """One connection listens for all coroutines that wait."""
    register("echo", lambda value: value, replace=True)
    sound, damaged = (deployment.client.submit("echo", [1]) for _ in range(2))
    store = BatchStore(deployment.settings)

    async def wait() -> None:
        waiting = [asyncio.create_task(batch.await_()) for batch in (sound, damaged)]
        await asyncio.sleep(0.3)
        _text(deployment.redis, store.keys.batch(damaged.id).events)
        with pytest.raises(UnreadableBatch):
            await asyncio.wait_for(waiting[1], 20)
        await asyncio.sleep(0.5)
        assert not waiting[0].done()
        await sound.acancel()
        record = await asyncio.wait_for(waiting[0], 20)
        assert record.status is BatchStatus.CANCELLED

    asyncio.run(wait())
    _delete(deployment, store, [damaged])
    store.close()
