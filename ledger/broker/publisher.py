"""The publisher of shards: each is a Celery chord of tasks that carry items, and its gather."""

from collections.abc import Iterable
from typing import Any

from celery import Celery
from celery.canvas import Signature
from celery.signals import after_task_publish, before_task_publish

from batchord.chains.runtime.tracing import TRACEPARENT
from batchord.ledger.broker.celery_app import queue_apart
from batchord.ledger.broker.message_copies import COPIES, SentTask
from batchord.ledger.broker.qos import SLOTS
from batchord.ledger.broker.transport import Channel
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.core.message_ids import (
    GATHER,
    RUN_ITEMS,
    gather_task_id,
    shard_group_id,
    task_id,
)
from batchord.ledger.core.sharding import Shard
from batchord.ledger.models import BatchStatus
from batchord.ledger.needs import HEADER, Needs
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore, Route
from batchord.ledger.storage.fleet_store import FleetStore

#: The priority of gathers, which are short and publish the next shards, and of a dead worker's
#: items, which have waited for their turn before.
FIRST = 0


def publish_shards(app: Celery, store: BatchStore, batch_id: str, *, most: int = 64) -> None:
    """Publish shards while the batch's window has room, at most `most` of them.

    Called after the seal, after each gather and by the sweep. A crash leaves the shard unrecorded,
    so that the next caller publishes it again: it is cut as before, and claims of items that run or
    are settled are refused.
    """
    while most > 0 and (shard := store.next_shard(batch_id)) is not None:
        most -= 1
        tasks = unsettled_tasks(store, batch_id, shard) if shard.again else shard.tasks()
        publish_tasks(app, store, batch_id, shard, tasks)
        crash_point("half-published")
        store.shard_published(batch_id, shard.number)


def unsettled_tasks(store: BatchStore, batch_id: str, shard: Shard) -> list[range]:
    """Return the tasks of a shard that carry an item without an outcome.

    Deferred items are left out: they are published when they are due.
    """
    reader = BatchReader(store)
    items = reader.items_at(batch_id, range(shard.start, shard.stop))
    put_off = reader.put_off(batch_id)
    return shard.tasks_of(
        item.index for item in items if not item.status.ended and item.index not in put_off
    )


def publish_due(app: Celery, store: BatchStore, batch_id: str, *, most: int = 1000) -> int:
    """Publish the deferred items that are due; return the number of tasks.

    Called by the worker that deferred them, when they are due, and by the sweep. A crash in between
    leaves items without a message in the queue: the sweep finds those too.
    """
    reader = BatchReader(store)
    if reader.status(batch_id) is not BatchStatus.IN_PROGRESS:
        return 0
    due = set(store.come_due(batch_id, limit=most))
    count = 0
    for shard in reader.open_shards(batch_id) if due else ():
        tasks = shard.tasks_of(due.intersection(range(shard.start, shard.stop)))
        if tasks:
            publish_tasks(app, store, batch_id, shard, tasks)
        count += len(tasks)
    return count


def publish_tasks(
    app: Celery,
    store: BatchStore,
    batch_id: str,
    shard: Shard,
    tasks: Iterable[range],
    *,
    priority: int | None = None,
) -> None:
    """Publish all or some tasks of a shard, as its chord, in one pipelined write.

    `priority`: in place of the batch's.

    The messages are those of `group(...).apply_async(chord=gather)`. A group would make a
    signature, a clone, a result and a declaration of the queue for each task. All messages but the
    first are copies of it, unless something in this process wants to hear of each message.
    """
    amqp, group_id = app.amqp, shard_group_id(batch_id, shard.number)
    route = store.route(batch_id)
    queue = _queue(app, store, route, shard.number)
    if priority is None:
        priority = route.priority
    body = gather(app, batch_id, shard.number, route.needs)
    needs = route.needs.header()
    sent = [_sent(batch_id, shard, items) for items in tasks]
    with app.producer_pool.acquire(block=True) as producer, producer.batch():
        declare = [queue]
        alone = not isinstance(producer.channel, Channel) or _is_heard(app)
        for task, *alike in [[one] for one in sent] if alone else filter(None, [sent]):
            message = amqp.as_task_v2(
                task.id,
                RUN_ITEMS,
                kwargs=task.kwargs,
                argsrepr="()",
                kwargsrepr=task.kwargsrepr,
                group_id=group_id,
                group_index=task.group_index,
                chord=body,
                ignore_result=True,
            )
            amqp.send_task_message(
                producer,
                RUN_ITEMS,
                message,
                queue=queue,
                declare=declare,
                priority=priority,
                headers={
                    SLOTS: task.slots,
                    HEADER: needs,
                    **({TRACEPARENT: route.traceparent} if route.traceparent else {}),
                    **({COPIES: alike} if alike else {}),
                },
            )
            declare = []
    if route.apart:
        FleetStore(store).put_apart(route.needs)


def _queue(app: Celery, store: BatchStore, route: Route, shard: int) -> Any:
    """Return the queue (kombu's) of a shard's messages."""
    if not route.apart:
        return app.amqp.queues[queue_of(store.settings, route.lane, shard)]
    return queue_apart(app, route.needs.queue(store.settings.queue))


def _is_heard(app: Celery) -> bool:
    """Return whether something in this process wants to hear of each message."""
    heard = before_task_publish.receivers or after_task_publish.receivers
    return bool(heard or app.conf.task_send_sent_event)


def _sent(batch_id: str, shard: Shard, items: range) -> SentTask:
    # Named arguments, so that Flower's search finds them: kwargs:batch_id=batch_...
    kwargs = {
        "batch_id": batch_id,
        "shard": shard.number,
        "index": items.start,
        "count": len(items),
    }
    return SentTask(
        task_id(batch_id, items),
        kwargs,
        repr(kwargs),
        (items.start - shard.start) // shard.items_per_task,
        shard.slots_of(items),
    )


def queue_of(settings: Settings, lane: int, shard: int) -> str:
    """Return a shard's queue: its batch's lane, or the first queue for the first shard.

    Workers take from all queues by turns. So a new batch begins at once, however many items of
    others wait, and a batch with few items in the queue does not wait behind a batch with many.
    """
    return settings.queues[0] if shard == 0 else settings.lane(lane)


def gather(app: Celery, batch_id: str, shard: int, needs: Needs) -> Signature:
    """Return the signature of a shard's gather; `needs`: what its batch needs."""
    return app.signature(
        GATHER,
        kwargs={"batch_id": batch_id, "shard": shard},
        immutable=True,
        task_id=gather_task_id(batch_id, shard),
        priority=FIRST,
        headers={HEADER: needs.without_chain().header()},
    )
