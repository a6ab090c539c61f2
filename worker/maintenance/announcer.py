"""The announcer: says every few seconds that this worker is alive, and which chains it has."""

import logging
import os
import socket
import threading

from celery import Celery

from batchord.ledger.models import announcements
from batchord.ledger.storage.fleet import ANNOUNCED_EVERY, Announcement, FleetStore
from batchord.worker.execution.resilient_threads import survives
from batchord.worker.execution.worker_context import WorkerContext

logger = logging.getLogger(__name__)

#: Prefixes of the names of tasks that are not a user's.
_OWN_TASKS = ("batchord.", "celery.")


class Announcer:
    """A thread of its own: a worker stays announced however long its sweep takes."""

    def __init__(self, app: Celery, runtime: WorkerContext) -> None:
        self._app = app
        self._store = runtime.store
        self._fleet = FleetStore(runtime.store)
        self._every = min(ANNOUNCED_EVERY, runtime.settings.sweep_interval)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="announcer", daemon=True)

    def start(self) -> None:
        """Announce the chains of this worker, and go on to do so."""
        # As they are now: a module whose file is edited later is not what this worker has.
        self._here = Announcement.here()
        self._chains = announcements()
        self._tasks = [name for name in self._app.tasks if not name.startswith(_OWN_TASKS)]
        self._say_what_is_unset()
        # If the server does not answer, the next round does it: the worker waits for it, too.
        survives("announcement", self._announce)
        self._thread.start()

    def stop(self) -> None:
        """Take the announcement back; wait up to two seconds for it."""
        self._stop.set()
        self._thread.join(timeout=2)

    def _loop(self) -> None:
        while not self._stop.wait(self._every):
            # Each time all of it: the server may have lost it, and producers would find no chains.
            survives("announcement", self._announce)
        survives("end of the announcement", lambda: self._fleet.leave(self._name))

    def _announce(self) -> None:
        self._store.announce(self._chains, self._tasks)
        self._fleet.announce(self._name, self._here)

    def _say_what_is_unset(self) -> None:
        for name, chain in self._here.chains.items():
            if chain.unset:
                logger.warning("chain %s cannot run: not set: %s", name, ", ".join(chain.unset))
