"""The announcer: says every few seconds what this worker is and does, and which chains it has."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from batchord.ledger.broker.celery_app import queue_apart
from batchord.ledger.models import announcements
from batchord.ledger.storage.fleet_store import FleetStore, process_name
from batchord.worker.execution.beats import Beats
from batchord.worker.execution.resilient_threads import survives
from batchord.worker.execution.worker_context import WorkerContext

logger = logging.getLogger(__name__)

#: Prefixes of the names of tasks that are not a user's.
_OWN_TASKS = ("batchord.", "celery.")


class Announcer:
    """Keeps this worker listed, and its chains known, until it ends."""

    def __init__(self, worker: Any, runtime: WorkerContext) -> None:
        """`worker`: Celery's."""
        self._worker = worker
        self._runtime = runtime
        self._fleet = FleetStore(runtime.store)
        self._process = process_name()
        self._beats = Beats(runtime.store, self._announce, self._leave)

    def start(self) -> None:
        """Announce this worker, and go on to do so."""
        app = self._worker.app
        # As they are now: a module whose file is edited later is not what this worker has.
        self._chains = announcements()
        self._tasks = [name for name in app.tasks if not name.startswith(_OWN_TASKS)]
        self._runtime.serving.start(self._worker.hostname)
        self._here = self._runtime.serving.beat.model_copy(update={"since": datetime.now(UTC)})
        self._say_what_is_unset()
        # If the server does not answer, the next beat does it: the worker waits for it, too.
        survives("beat", self._announce)
        self._beats.start()

    def stop(self) -> None:
        """Take the announcement back; wait up to two seconds for it."""
        self._beats.stop()

    def _leave(self) -> None:
        self._fleet.leave(self._process)

    def _announce(self) -> None:
        # Each time all of it: the server may have lost it, and producers would find no chains.
        self._runtime.store.announce(self._chains, self._tasks)
        now = {
            "slots": self._worker.pool.num_processes,
            "queues": tuple(sorted(self._queues())),
            **self._runtime.running(),
        }
        self._fleet.beat(self._process, self._here.model_copy(update=now))
        self._look_apart()

    def _queues(self) -> Iterable[str]:
        found: Iterable[str] = self._worker.app.amqp.queues.consume_from
        return found

    def _look_apart(self) -> None:
        """Take from the queues of what was put apart and this worker serves, unless it is drained.

        Tell of those into which this worker has put messages.
        """
        noted = self._runtime.serving.noted
        while noted:
            needs = noted.pop()
            try:
                self._fleet.put_apart(needs)
            except BaseException:
                noted.add(needs)
                raise
        consumer = getattr(self._worker, "consumer", None)
        if consumer is None or getattr(consumer, "task_consumer", None) is None:
            return
        queues, settings = set(self._queues()), self._runtime.settings
        drained = not queues.intersection(settings.queues)
        apart = self._fleet.apart()
        for queue, needs in apart.items():
            if queue in queues and drained:
                consumer.call_soon(consumer.cancel_task_queue, queue)
            elif queue not in queues and not drained and self._runtime.serving.serves(needs):
                queue_apart(self._worker.app, queue)
                consumer.call_soon(consumer.add_task_queue, queue)

    def _say_what_is_unset(self) -> None:
        for name, chain in self._here.chains.items():
            if chain.unset:
                logger.warning("chain %s cannot run: not set: %s", name, ", ".join(chain.unset))
