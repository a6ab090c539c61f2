"""The sweep: repairs batches after a crash.

It is a thread in every worker and not a scheduled task, as a scheduled task is itself a message
that can be lost. A lock that expires lets one worker sweep in each interval.
"""

import logging
import threading
import time

from celery import Celery

from batchord.chains.errors import BatchordError
from batchord.ledger.broker.publisher import (
    FIRST,
    gather,
    publish_due,
    publish_shards,
    publish_tasks,
    unsettled_tasks,
)
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.core.sharding import Shard
from batchord.ledger.errors import UnknownBatch, concerns_all
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.models import BatchRecord, BatchStatus, Mode, Repair
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.fleet_store import process_name
from batchord.worker.execution.lease_heartbeat import RENEWALS
from batchord.worker.execution.resilient_threads import place_of
from batchord.worker.execution.worker_context import WorkerContext
from batchord.worker.provider_batch.poller import Poller
from batchord.worker.tasks import commit_if_finalizing

logger = logging.getLogger(__name__)

#: Items with an expired lease that one turn publishes again, per batch.
PAGE = 1000


class Sweep:
    """A thread that repairs every live batch, once in `Settings.sweep_interval` seconds."""

    def __init__(self, app: Celery, runtime: WorkerContext) -> None:
        self._app = app
        self._runtime = runtime
        self._store = runtime.store
        self._reader = BatchReader(runtime.store)
        self._control = BatchControl(app, runtime.store)
        self._poller = Poller(app, runtime)
        self._settings = runtime.settings
        self._owner = process_name()
        #: Until this time an expired lease proves nothing: its worker could not renew it either.
        self._mistrust_until = 0.0
        self._heard = 0.0
        #: Batches that could not be repaired, and why.
        self._skipped: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sweep", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sweeping; wait up to two seconds for a running turn."""
        self._stop.set()
        self._poller.stop()
        self._thread.join(timeout=2)

    def _loop(self) -> None:
        while not self._stop.wait(self._settings.sweep_interval):
            self._heard = time.monotonic()
            try:
                took = self._store.take_turn(self._owner)
                self._hear()
                if took:
                    self.turn()
            except BatchordError as error:
                # Workers could not renew their leases either.
                if concerns_all(error):
                    self._mistrust()
                logger.warning("sweep put off: %s", error)
            except BaseException as error:  # noqa: BLE001
                # Whatever it was, the next turn must come. Its text may quote what a key holds.
                logger.error("sweep failed: %s in %s", type(error).__name__, place_of(error))

    def turn(self) -> None:
        """Repair each live batch, and remove expired batches from the index."""
        for batch_id in self._reader.active():
            try:
                self._repair(self._reader.record(batch_id))
            except UnknownBatch:
                self._store.forget(batch_id)
            except Exception as error:
                if concerns_all(error):
                    raise
                # The error concerns this batch alone: go on with the others.
                self._skip(batch_id, error)
            finally:
                self._hear()
        self._store.forget_expired()
        self._hear()

    def _skip(self, batch_id: str, error: Exception) -> None:
        """Log, once, why a batch cannot be repaired."""
        if self._skipped.get(batch_id) != str(error):
            self._skipped[batch_id] = str(error)
            logger.error(
                "batch skipped batch=%s (%d so far): %s", batch_id, len(self._skipped), error
            )

    def _hear(self) -> None:
        """Record that a Redis call returned; if it took too long, do not trust expired leases.

        If it took longer than a renewal interval, workers could not renew their leases either.
        """
        now = time.monotonic()
        if now - self._heard > self._settings.lease / RENEWALS:
            self._mistrust()
        self._heard = now

    def _mistrust(self) -> None:
        self._mistrust_until = time.monotonic() + self._settings.lease

    def _repair(self, record: BatchRecord) -> None:
        if record.mode is Mode.PROVIDER and self._runtime.serving.serves(record.needs):
            self._poller.name(record.id)
        match record.status:
            case BatchStatus.VALIDATING:
                self._abort(record)
            case BatchStatus.IN_PROGRESS | BatchStatus.PAUSED if self._control.expire(record):
                self._control.wind_up(record.id)
            case BatchStatus.IN_PROGRESS:
                publish_shards(self._app, self._store, record.id)
                if self._finish(record):
                    return
                self._bring_back_lapsed(record)
                if record.put_off:
                    publish_due(self._app, self._store, record.id)
                self._bring_back_overtaken(record)
                self._bring_back_lost(record)
            case BatchStatus.PAUSED if self._nothing_left(record) and not self._finish(record):
                self._bring_back_lost(record)
            case BatchStatus.CANCELLING:
                self._control.wind_up(record.id)
            case BatchStatus.FINALIZING:
                if not commit_if_finalizing(self._runtime, record.id):
                    self._control.wind_up(record.id)
            case status if status.ended:
                # The crash was between the commit and its last step.
                self._store.commit(
                    record.id, total=record.request_counts.total, key=record.idempotency_key
                )

    @staticmethod
    def _nothing_left(record: BatchRecord) -> bool:
        return record.request_counts.done == record.request_counts.total

    def _finish(self, record: BatchRecord) -> bool:
        """Commit a batch, paused or not, whose items all have an outcome; else return False."""
        return self._nothing_left(record) and self._control.finish(record)

    def _abort(self, record: BatchRecord) -> None:
        """Delete an unsealed batch whose producer has died."""
        if self._store.abort(record.id, silent=self._settings.submit_timeout):
            if record.idempotency_key is not None:
                self._store.free_key(record.idempotency_key, record.id)
            logger.warning("batch aborted batch=%s: its producer fell silent", record.id)

    def _bring_back_lapsed(self, record: BatchRecord) -> None:
        """Publish again the items with an expired lease: their worker has died."""
        if time.monotonic() < self._mistrust_until:
            return
        lapsed = set(self._store.lapsed(record.id, limit=PAGE))
        if lapsed:
            crash_point("sweep-mid-page")
            for shard in self._reader.open_shards(record.id):
                mine = lapsed.intersection(range(shard.start, shard.stop))
                tasks = shard.tasks_of(mine)
                self._republish(record.id, shard, tasks, Repair.WORKER_DIED, priority=FIRST)

    def _bring_back_overtaken(self, record: BatchRecord) -> None:
        """Publish again unclaimed items that a dead worker had taken from the queue.

        Only of the oldest open shard: once it is closed, the next shard is the oldest.
        """
        for shard in self._reader.open_shards(record.id)[:1]:
            tasks = shard.tasks_of(self._store.overtaken(record.id, shard))
            self._republish(record.id, shard, tasks, Repair.OVERTAKEN, priority=FIRST)

    def _bring_back_lost(self, record: BatchRecord) -> None:
        """Publish again items and gathers whose message was lost from the queue."""
        quiet = self._reader.quiet_for(record)
        patience = 2 * self._settings.sweep_interval
        if record.running or quiet < patience:
            return
        waiting = self._reader.queue_length(record.id)
        if waiting and (quiet < self._settings.stall_timeout or self._unserved(record)):
            return
        for shard in self._reader.open_shards(record.id):
            if self._reader.complete(record.id, shard.number):
                gather(self._app, record.id, shard.number, record.needs).apply_async()
                self._store.count_repairs(Repair.GATHER_LOST, 1)
                logger.warning("gather sent again batch=%s shard=%s", record.id, shard.number)
            else:
                tasks = unsettled_tasks(self._store, record.id, shard)
                self._republish(record.id, shard, tasks, Repair.MESSAGE_LOST)
        # It counts as progress: the next check is a full `patience` away.
        self._store.note(record.id, record.status)

    def _unserved(self, record: BatchRecord) -> bool:
        """Whether no live worker runs the batch: its messages are in the queue, and wait there."""
        return bool(self._reader.fleet().trouble(record.needs))

    def _republish(
        self,
        batch_id: str,
        shard: Shard,
        tasks: list[range],
        why: Repair,
        *,
        priority: int | None = None,
    ) -> None:
        """Publish tasks again; claims refuse their settled items."""
        if not tasks:
            return
        publish_tasks(self._app, self._store, batch_id, shard, tasks, priority=priority)
        self._store.count_repairs(why, len(tasks))
        logger.warning(
            "tasks sent again batch=%s shard=%s tasks=%s: %s",
            batch_id,
            shard.number,
            len(tasks),
            why,
        )
