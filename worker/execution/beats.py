"""The beats of a process: every few seconds it tells the ledger what it is and does."""

import os
import threading
from collections.abc import Callable
from typing import Any

from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.fleet import Beat
from batchord.ledger.storage.fleet_store import BEATS_EVERY, FleetStore, process_name
from batchord.worker.execution.resilient_threads import survives


class Beats:
    """A thread of its own: a process stays listed however long its other work takes.

    `beat` is called in it every few seconds, and `end` once, as it ends.
    """

    def __init__(
        self,
        store: BatchStore,
        beat: Callable[[], object],
        end: Callable[[], object] = lambda: None,
    ) -> None:
        self._beat, self._end = beat, end
        self._every = min(BEATS_EVERY, store.settings.sweep_interval)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="beats", daemon=True)

    def start(self) -> None:
        """Begin; the first beat is due after the first interval."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; wait up to two seconds for it."""
        self._stop.set()
        self._thread.join(timeout=2)

    def _loop(self) -> None:
        while not self._stop.wait(self._every):
            survives("beat", self._beat)
        survives("end of the beats", self._end)


def start_child_beats(store: BatchStore, running: Callable[[], dict[str, Any]]) -> None:
    """Have a forked child tell what it runs (`running`); it counts to its worker."""
    fleet, name, worker = FleetStore(store), process_name(), process_name(os.getppid())
    Beats(store, lambda: fleet.beat(name, Beat(child_of=worker, **running()))).start()
