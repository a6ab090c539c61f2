"""The Celery tasks: thin, so that all they know is how Celery wants to be answered."""

import logging
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore

from ledger.models import BatchStatus, ItemStatus
from ledger.publish import publish_shards
from ledger.reader import Reader
from ledger.wire import GATHER, RUN_ITEM
from worker.runtime import Refused, Runtime

logger = logging.getLogger(__name__)


class ItemFailed(Exception):
    """An item ended without an output; only its error's code enters Celery, Flower and the logs."""


def register_tasks(app: Celery, runtime: Runtime) -> None:
    """Add the two tasks to the app."""

    @app.task(name=RUN_ITEM, bind=True, throws=(ItemFailed,))
    def run_item(self: Task, batch_id: str, index: int) -> None:
        try:
            outcome = runtime.run_item(batch_id, index)
        except Refused as refusal:
            if refusal.verdict == "settled":
                # An earlier delivery died between the outcome and its chord part: count it now.
                return
            # Someone else holds it, and the sweep watches their lease; or the batch takes no new
            # starts. Either way this message is done with, and is no part of the chord.
            raise Ignore from None
        if outcome.status is not ItemStatus.SUCCEEDED:
            code = outcome.error.code if outcome.error else outcome.status.value
            raise ItemFailed(code) from None

    @app.task(name=GATHER)
    def gather(batch_id: str, shard: int) -> None:
        close_shard(app, runtime, batch_id, shard)


def close_shard(app: Celery, runtime: Runtime, batch_id: str, shard: int) -> None:
    """Close a shard, publish the next ones, and commit the batch after the last."""
    missing = runtime.store.gather(batch_id, shard)
    fields: dict[str, Any] = {"batch": batch_id, "shard": shard}
    if missing:
        # The chord counts tasks, the ledger counts outcomes: the sweep brings back the missing.
        logger.warning("shard not closed batch=%s shard=%s missing=%s", batch_id, shard, missing)
        return
    logger.info("shard closed batch=%s shard=%s", batch_id, shard, extra=fields)
    publish_shards(app, runtime.store, batch_id)
    commit_if_finalizing(runtime, batch_id)


def commit_if_finalizing(runtime: Runtime, batch_id: str) -> None:
    """End the batch if each of its items has an outcome; once, whoever comes first."""
    record = Reader(runtime.store).record(batch_id)
    if record.status is not BatchStatus.FINALIZING:
        return
    if runtime.store.commit(
        batch_id, total=record.request_counts.total, key=record.idempotency_key
    ):
        logger.info("batch committed batch=%s", batch_id, extra={"batch": batch_id})
