"""Go on with a ledger whose processes are all gone, without waiting for their leases."""

from typing import Final

from celery import Celery

from batchord.ledger.broker.publisher import gather, publish_shards
from batchord.ledger.core.message_ids import lists_of
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.fleet_store import FleetStore

#: Where kombu keeps the messages that workers have taken and not acknowledged.
_UNACKED: Final = ("unacked", "unacked_index", "unacked_mutex")


def take_over(app: Celery, store: BatchStore) -> None:
    """Bring back at once what processes that are gone have held.

    Only for a ledger that no other process uses: leases of living workers would be lost. Messages
    that are queued or in the hands of dead workers are dropped, and each item without an outcome is
    published anew. Batches that were not sealed are deleted, as nothing of them has run.
    """
    reader = BatchReader(store)
    _forget_processes(store)
    for batch_id in reader.active():
        record = reader.record(batch_id)
        if record.status is BatchStatus.VALIDATING:
            if store.abort(batch_id) and record.idempotency_key is not None:
                store.free_key(record.idempotency_key, batch_id)
        else:
            _drop_leases(store, batch_id)
            _bring_back(app, store, record)


def _bring_back(app: Celery, store: BatchStore, record: BatchRecord) -> None:
    reader, control = BatchReader(store), BatchControl(app, store)
    for shard in reader.open_shards(record.id):
        if reader.complete(record.id, shard.number):
            gather(app, record.id, shard.number, record.needs).apply_async()
    match record.status:
        case BatchStatus.IN_PROGRESS:
            control.republish(record.id)
            publish_shards(app, store, record.id)
        case BatchStatus.CANCELLING:
            control.wind_up(record.id)
        case BatchStatus.FINALIZING:
            control.end_if_finalizing(record)
        case _:
            pass  # it is paused, and `resume` publishes what is left


def _forget_processes(store: BatchStore) -> None:
    """Drop messages, and what workers have announced."""
    keys = store.keys
    queues = [
        name
        for queue in (*store.settings.queues, *FleetStore(store).apart())
        for name in lists_of(queue)
    ]
    with store.talking():
        store.redis.delete(*queues, *_UNACKED, keys.chains, keys.tasks, keys.fleet, keys.sweep)


def _drop_leases(store: BatchStore, batch_id: str) -> None:
    keys = store.keys.batch(batch_id)
    with store.talking():
        store.redis.delete(keys.leases, keys.poller, keys.looked)
        # A publisher that died while it published a shard holds that shard for a lease period.
        store.redis.hdel(keys.meta, "publishing_until")
