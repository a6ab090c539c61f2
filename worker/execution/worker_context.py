"""What the tasks of a process share: the ledger, the leases, and the runner of items."""

import logging
import os
import socket
import threading

from celery import Celery

from batchord.chains.ratelimit import limits
from batchord.chains.runtime.background import call_soon_threadsafe
from batchord.chains.runtime.item_context import item_name
from batchord.chains.runtime.loop_thread import default_loop
from batchord.ledger.broker.publisher import publish_due, publish_shards
from batchord.ledger.errors import UnknownBatch
from batchord.ledger.lifecycle.completion_callback import end_batch
from batchord.ledger.models import BatchRecord, ItemStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.connection import PATIENT
from batchord.ledger.storage.item_leases import ClaimRequest, ItemLeases
from batchord.ledger.storage.loop_lags import LoopLags
from batchord.ledger.storage.output_cache import OutputCache
from batchord.ledger.storage.rate_limiter import LedgerLimiter
from batchord.worker.execution.item_scheduler import ItemScheduler
from batchord.worker.execution.lease_heartbeat import LeaseHeartbeat
from batchord.worker.execution.task_report import TaskReport
from batchord.worker.execution.watchdog import EXIT_CODE, Blocked, Watchdog, exit_now

logger = logging.getLogger(__name__)

#: Items in flight unless a worker says how many it has threads for.
DEFAULT_SLOTS = 32
#: Seconds for handing back what runs when the worker ends.
HAND_BACK = 5.0


class WorkerContext:
    """The sync edge of a process's work; it connects to nothing before the first item."""

    def __init__(self, settings: Settings, *, app: Celery) -> None:
        self.settings = settings
        self._app = app
        self.slots = DEFAULT_SLOTS
        #: Whether items run in the process that takes the messages.
        self.in_process = False
        self.store = BatchStore(settings, retries=PATIENT)
        self._item_leases = ItemLeases(self.store)
        self.leases = LeaseHeartbeat(
            self._item_leases, lease=settings.lease, on_stop=self._stop, on_beat=self._tell_lag
        )
        self._loops = LoopLags(self.store)
        #: Of the process that runs items, once it has begun to.
        self.watchdog: Watchdog | None = None
        #: Set when a batch has been ended here: others are to be told.
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._runner: ItemScheduler | None = None

    def run_items(self, batch_id: str, shard: int, items: range, slots: int) -> TaskReport:
        """Run one attempt of each item and record its outcome; return what became of them.

        `slots`: how many places in flight the items take.

        Raises:
            LedgerUnavailable: for the items concerned nothing is recorded; their leases run out.
        """
        return default_loop().run(self.runner.run(batch_id, shard, items, slots))

    def hand_back(self) -> None:
        """Release what runs here; it runs elsewhere, and none of it has cost an attempt."""
        if self._runner is not None:
            default_loop().run(self._runner.hand_back(), timeout=HAND_BACK)

    def end(self, record: BatchRecord) -> bool:
        """Commit a batch whose items all have an outcome; True if it was done here, and now."""
        done = end_batch(self._app, self.store, record)
        if done:
            self.ended.set()
        return done

    def slots_wanted(self) -> float:
        """How many slots' work this process should have in hand."""
        if not self.in_process:
            return float("inf")  # each child has slots of its own, and Celery counts their tasks
        return self.slots if self._runner is None else self._runner.slots_wanted()

    def _publish(self, batch_id: str) -> None:
        """Publish what the batch's window has room for now."""
        try:
            publish_shards(self._app, self.store, batch_id)
        except Exception as error:  # noqa: BLE001
            # The next gather does it, or the sweep.
            logger.warning("not published batch=%s: %s", batch_id, type(error).__name__)

    def _publish_due(self, batch_id: str) -> None:
        """Publish what was put off and may start again, and what there is room for."""
        try:
            publish_due(self._app, self.store, batch_id)
            publish_shards(self._app, self.store, batch_id)
        except UnknownBatch:
            return  # it has ended, and was purged
        except Exception as error:  # noqa: BLE001
            logger.warning("not published batch=%s: %s", batch_id, type(error).__name__)

    def _stop(self, batches: dict[str, ItemStatus]) -> None:
        """Have what runs of these batches cancelled; called by the thread of the leases."""
        call_soon_threadsafe(default_loop().loop, self.runner.stop, batches)

    def _tell_lag(self) -> None:
        if self.watchdog is not None:
            process = f"{socket.gethostname()}:{os.getpid()}"
            self._loops.tell(process, self.watchdog.lag.now())

    def give_up(self, blocked: Blocked | None) -> None:
        """End this process, whose event loop does not turn; called by any thread but the loop's.

        What it held and does not block the loop runs elsewhere, and has lost no attempt. What
        blocks it has lost this one, as if it had killed the process.
        """
        held = self.leases.close()
        # In a thread: whatever hangs in here, a log or the ledger, the process ends.
        words = threading.Thread(target=self._last_words, args=(held, blocked), daemon=True)
        words.start()
        words.join(HAND_BACK)
        exit_now()

    def _last_words(self, held: list[ClaimRequest], blocked: Blocked | None) -> None:
        logger.critical(
            "the event loop has not turned for %.1f s (BATCHORD_LOOP_TIMEOUT): this process exits "
            "with code %d; blocked by %s",
            0.0 if self.watchdog is None else self.watchdog.lag.now(),
            EXIT_CODE,
            blocked or "nobody: its thread has ended",
        )
        guilty = blocked.run.name if blocked is not None and blocked.run is not None else None
        if guilty is None:
            return  # it may be any of them: each loses an attempt, as when a process is killed
        innocent = [one for one in held if item_name(one.batch_id, one.index) != guilty]
        count = self._item_leases.abandon(innocent)
        logger.warning("%d other items run elsewhere, at no cost to them", count)

    @property
    def runner(self) -> ItemScheduler:
        """The process's runner, made at the first use: a pool may have forked before."""
        with self._lock:
            if self._runner is None:
                # With the runner: where a pool forks, each child counts by itself.
                limits.install(LedgerLimiter(self.store))
                self.watchdog = Watchdog(
                    default_loop(), limit=self.settings.loop_timeout, on_dead=self.give_up
                )
                self.watchdog.start()
                self._runner = ItemScheduler(
                    self._item_leases,
                    self.leases,
                    self.settings,
                    OutputCache(self.store),
                    slots=self.slots,
                    on_room=self._publish,
                    on_due=self._publish_due,
                )
            return self._runner
