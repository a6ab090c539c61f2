"""The context that all tasks of a process share: ledger, lease heartbeat, item scheduler."""

import asyncio
import logging
import threading
from typing import Any

from celery import Celery

from batchord.chains.ratelimit import limits
from batchord.chains.runtime.background import call_soon_threadsafe
from batchord.chains.runtime.item_context import item_name
from batchord.chains.runtime.loop_thread import default_loop
from batchord.chains.runtime.tracing import TRACEPARENT, note_submission
from batchord.ledger.broker.publisher import publish_due, publish_shards
from batchord.ledger.broker.qos import SLOTS
from batchord.ledger.errors import UnknownBatch
from batchord.ledger.lifecycle.completion_callback import end_batch
from batchord.ledger.models import BatchRecord, ItemStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.connection import PATIENT
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import ClaimRequest
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.ledger.storage.output_cache import OutputCache
from batchord.ledger.storage.rate_limiter import LedgerLimiter
from batchord.worker.execution.beats import start_child_beats
from batchord.worker.execution.chain_source import ChainSource
from batchord.worker.execution.item_scheduler import ItemScheduler
from batchord.worker.execution.lease_heartbeat import LeaseHeartbeat
from batchord.worker.execution.serving import Serving
from batchord.worker.execution.task_report import TaskReport
from batchord.worker.execution.watchdog import EXIT_CODE, Blocked, Watchdog, exit_now

logger = logging.getLogger(__name__)

#: Items in flight unless a worker says how many it has threads for.
DEFAULT_SLOTS = 32
#: Seconds for handing back running items when the worker ends.
HAND_BACK = 5.0


def items_and_slots(index: int, count: int, slots: int | None) -> tuple[range, int]:
    """Return the indexes of a task's items, a page at most, and the slots that they take together.

    `slots`: what the message says; None: a slot for each item.
    """
    items = range(index, index + min(count, PAGE_SIZE))
    return items, slots or len(items)


class WorkerContext:
    """The sync entry to a process's items; it connects to nothing before the first item."""

    def __init__(self, settings: Settings, *, app: Celery) -> None:
        self.settings = settings
        self._app = app
        self.slots = DEFAULT_SLOTS
        #: Whether items run in the process that takes the messages.
        self.in_process = False
        self.store = BatchStore(settings, retries=PATIENT)
        self._item_leases = ItemLeases(self.store)
        self.leases = LeaseHeartbeat(self._item_leases, lease=settings.lease, on_stop=self._stop)
        self.chains = ChainSource(self.store)
        self.serving = Serving(settings)
        #: Made with the scheduler, in the process that runs items.
        self.watchdog: Watchdog | None = None
        #: Set when this process has committed a batch: its outbox entries are due.
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._runner: ItemScheduler | None = None

    def run_items(self, batch_id: str, shard: int, items: range, slots: int) -> TaskReport:
        """Run one attempt of each item and record its outcome; return a report of the outcomes.

        `slots`: the number of slots that the items take together.

        Raises:
            LedgerUnavailable: some items' outcomes are not recorded; their leases expire.
        """
        return default_loop().run(self.runner.run(batch_id, shard, items, slots))

    def start_items(
        self, arguments: dict[str, Any], request: dict[str, Any]
    ) -> asyncio.Future[TaskReport]:
        """Start the items of a task on the running event loop; its future has their report.

        `arguments`: those of the task; `request`: its headers, among them the number of slots.
        """
        index, count = arguments["index"], arguments.get("count", 1)
        items, slots = items_and_slots(index, count, request.get(SLOTS))
        note_submission(arguments["batch_id"], request.get(TRACEPARENT))
        return self.runner.start(arguments["batch_id"], arguments["shard"], items, slots)

    def hand_back(self) -> None:
        """Release all running items to other processes; this consumes no attempt."""
        if self._runner is not None:
            default_loop().run(self._runner.hand_back(), timeout=HAND_BACK)

    def end(self, record: BatchRecord) -> bool:
        """Commit a batch whose items all have an outcome; return whether this call did it."""
        done = end_batch(self._app, self.store, record)
        if done:
            self.ended.set()
        return done

    def slots_wanted(self) -> float:
        """Return how many slots' worth of items this process should have in hand."""
        if not self.in_process:
            return float("inf")  # each child has slots of its own, and Celery counts their tasks
        return self.slots if self._runner is None else self._runner.slots_wanted()

    def _publish(self, batch_id: str) -> None:
        """Publish shards while the batch's window has room."""
        try:
            publish_shards(self._app, self.store, batch_id)
        except Exception as error:  # noqa: BLE001
            # The next gather publishes them, or the sweep does.
            logger.warning("not published batch=%s: %s", batch_id, type(error).__name__)

    def _publish_due(self, batch_id: str) -> None:
        """Publish deferred items that are due, and shards while the batch's window has room."""
        try:
            publish_due(self._app, self.store, batch_id)
            publish_shards(self._app, self.store, batch_id)
        except UnknownBatch:
            return  # it has ended, and was purged
        except Exception as error:  # noqa: BLE001
            logger.warning("not published batch=%s: %s", batch_id, type(error).__name__)

    def _stop(self, batches: dict[str, ItemStatus]) -> None:
        """Cancel the running items of these batches; called by the heartbeat's thread."""
        call_soon_threadsafe(default_loop().loop, self.runner.stop, batches)

    def running(self) -> dict[str, Any]:
        """Return how many items run in this process, and how late its loop is, as a beat has it."""
        if self._runner is None or self.watchdog is None:
            return {}
        return {"in_flight": self._runner.in_flight, "loop_lag": self.watchdog.lag.now()}

    def give_up(self, blocked: Blocked | None) -> None:
        """End this process, whose event loop is blocked; called by any thread but the loop's.

        The item that blocks the loop loses this attempt, as if it had killed the process. All other
        items run elsewhere, and lose no attempt.
        """
        held = self.leases.close()
        # In a thread: even if the log or the ledger hangs, the process ends.
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
            return  # any item may block it: each loses an attempt, as when a process is killed
        innocent = [one for one in held if item_name(one.batch_id, one.index) != guilty]
        count = self._item_leases.abandon(innocent)
        logger.warning("%d other items run elsewhere, at no cost to them", count)

    @property
    def runner(self) -> ItemScheduler:
        """Return the process's scheduler, made at the first use: a pool may have forked before."""
        with self._lock:
            if self._runner is None:
                # Made with the scheduler: where a pool forks, each child counts its own calls.
                limits.install(LedgerLimiter(self.store))
                self.watchdog = Watchdog(
                    default_loop(), limit=self.settings.loop_timeout, on_dead=self.give_up
                )
                self.watchdog.start()
                if not self.in_process:
                    start_child_beats(self.store, self.running)
                self._runner = ItemScheduler(
                    self._item_leases,
                    self.leases,
                    self.settings,
                    OutputCache(self.store),
                    self.chains,
                    slots=self.slots,
                    on_room=self._publish,
                    on_due=self._publish_due,
                )
            return self._runner
