"""Publishing shards: one Celery chord each, its header one task per item, its body the gather."""

from collections.abc import Iterable

from celery import Celery, group
from celery.canvas import Signature

from ledger.reader import Reader
from ledger.store import Store
from ledger.wire import GATHER, RUN_ITEM, gather_task_id, item_task_id, shard_group_id


def publish_shards(app: Celery, store: Store, batch_id: str) -> None:
    """Publish what the batch's window has room for.

    Called after the seal, after each gather and by the sweep. A crash anywhere leaves the shard
    unrecorded, so that the next caller publishes it again; the task ids are the same, a claim is
    refused for what runs or is settled, and the chord counts each id once.
    """
    while (shard := store.next_shard(batch_id)) is not None:
        total, size = Reader(store).shape(batch_id)
        start = shard * size
        publish_items(app, batch_id, shard, range(start, min(start + size, total)))
        store.shard_published(batch_id, shard)


def publish_items(app: Celery, batch_id: str, shard: int, indexes: Iterable[int]) -> None:
    """Publish the items of a whole shard as a chord, in one pipelined write."""
    header = group(
        [_item(app, batch_id, index) for index in indexes],
        app=app,
        task_id=shard_group_id(batch_id, shard),
    )
    # chord.apply_async does not hand its producer on; group.apply_async does, and takes the body.
    with app.producer_pool.acquire(block=True) as producer, producer.batch():
        header.apply_async(
            producer=producer, chord=gather(app, batch_id, shard), add_to_parent=False
        )


def republish_items(app: Celery, batch_id: str, shard: int, indexes: Iterable[int]) -> None:
    """Publish single items again as parts of their chord, which counts each of them once."""
    body = gather(app, batch_id, shard)
    with app.producer_pool.acquire(block=True) as producer, producer.batch():
        for index in indexes:
            _item(app, batch_id, index).apply_async(
                producer=producer,
                chord=body,
                group_id=shard_group_id(batch_id, shard),
                add_to_parent=False,
            )


def gather(app: Celery, batch_id: str, shard: int) -> Signature:
    """Return the signature of a shard's gather."""
    return app.signature(
        GATHER,
        kwargs={"batch_id": batch_id, "shard": shard},
        immutable=True,
        task_id=gather_task_id(batch_id, shard),
    )


def _item(app: Celery, batch_id: str, index: int) -> Signature:
    # Named arguments, so that Flower's search finds them: kwargs:batch_id=batch_...
    return app.signature(
        RUN_ITEM,
        kwargs={"batch_id": batch_id, "index": index},
        immutable=True,
        task_id=item_task_id(batch_id, index),
    )
