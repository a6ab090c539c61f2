"""The two Celery tasks; they only translate reports to Celery's results and exceptions."""

import logging
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore, Reject, Retry

from batchord.chains.runtime.tracing import TRACEPARENT, note_submission
from batchord.ledger.broker.publisher import publish_shards
from batchord.ledger.broker.qos import SLOTS
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.core.message_ids import GATHER, RUN_ITEMS
from batchord.ledger.models import BatchStatus
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.worker.execution.asyncio_pool import report_of
from batchord.worker.execution.work_items import HandedBack
from batchord.worker.execution.worker_context import WorkerContext, items_and_slots

logger = logging.getLogger(__name__)

#: The request class that refuses messages which Batchord has not published.
REQUEST = "batchord.worker.execution.message_filter:Request"


class ItemFailed(Exception):
    """Items ended without an output; only their errors' codes enter Celery, Flower and the logs."""


class ItemPutOff(Exception):
    """Items wait for another attempt; as with ItemFailed, only the codes are shown."""


def register_tasks(app: Celery, runtime: WorkerContext) -> None:
    """Add the two tasks to the app."""

    @app.task(name=RUN_ITEMS, bind=True, throws=(ItemFailed,), Request=REQUEST)
    def run_items(self: Task, batch_id: str, shard: int, index: int, count: int = 1) -> None:
        try:
            started = report_of(self.request)
            if started is not None:
                report = started.result()
            else:
                told = getattr(self.request, SLOTS, None)
                items, slots = items_and_slots(index, count, told)
                note_submission(batch_id, getattr(self.request, TRACEPARENT, None))
                report = runtime.run_items(batch_id, shard, items, slots)
        except HandedBack:
            raise Reject("the worker is about to end", requeue=True) from None
        self.request.shard_complete = report.shard_complete
        if report.failed:
            raise ItemFailed(report.failures())
        if report.put_off:
            raise Retry(exc=ItemPutOff(", ".join(report.put_off)))
        if report.elsewhere and not report.shard_complete:
            # Other executions hold items, and the sweep watches their leases; or the batch takes
            # no new starts. Either way this message is done with.
            raise Ignore
        if report.refused:
            # An earlier delivery has settled them, and may have died before it sent the gather.
            self.request.shard_complete = BatchReader(runtime.store).complete(batch_id, shard)

    @app.task(name=GATHER, Request=REQUEST)
    def gather(batch_id: str, shard: int) -> None:
        close_shard(app, runtime, batch_id, shard)


def close_shard(app: Celery, runtime: WorkerContext, batch_id: str, shard: int) -> None:
    """Close a shard, publish the next ones, and commit the batch after the last."""
    missing = runtime.store.gather(batch_id, shard)
    fields: dict[str, Any] = {"batch": batch_id, "shard": shard}
    if missing:
        # The chord counts tasks, the ledger counts outcomes: the sweep brings back the missing.
        logger.warning("shard not closed batch=%s shard=%s missing=%s", batch_id, shard, missing)
        return
    logger.info("shard closed batch=%s shard=%s", batch_id, shard, extra=fields)
    crash_point("in-gather")
    publish_shards(app, runtime.store, batch_id)
    commit_if_finalizing(runtime, batch_id)


def commit_if_finalizing(runtime: WorkerContext, batch_id: str) -> bool:
    """Commit the batch if it is `finalizing`; return whether this call did it."""
    record = BatchReader(runtime.store).record(batch_id)
    if record.status is not BatchStatus.FINALIZING:
        return False
    done = runtime.end(record)
    if done:
        logger.info("batch committed batch=%s", batch_id, extra={"batch": batch_id})
    return done
