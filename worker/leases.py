"""Leases: while this process lives, what it holds stays its own."""

import logging
import threading
from collections import defaultdict

from chains.errors import BatchordError
from ledger.store import Store

logger = logging.getLogger(__name__)

#: Renewals per lease: a process that misses three in a row counts as dead.
RENEWALS = 4


class Leases:
    """Renews the leases of everything this process runs, in one thread.

    One thread for all, and not the items' own, so that a slow item is held however busy the loop
    and the pool are; a frozen or killed process stops renewing, which is the point.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[str, dict[int, str]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, batch_id: str, index: int, token: str) -> None:
        """Keep an item's lease alive from now on."""
        with self._lock:
            self._held[batch_id][index] = token
            if self._thread is None or not self._thread.is_alive():  # first use, or after a fork
                self._stop.clear()
                self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._thread.start()

    def drop(self, batch_id: str, index: int) -> None:
        """Let an item's lease run out."""
        with self._lock:
            held = self._held.get(batch_id)
            if held is not None:
                held.pop(index, None)
                if not held:
                    del self._held[batch_id]

    def stop(self) -> None:
        """End the thread; what is still held runs out."""
        self._stop.set()

    def _beat(self) -> None:
        while not self._stop.wait(self._store.settings.lease / RENEWALS):
            with self._lock:
                held = {batch_id: dict(items) for batch_id, items in self._held.items()}
            for batch_id, items in held.items():
                try:
                    lost = self._store.beat(batch_id, items)
                except BatchordError as error:
                    logger.warning("leases not renewed: %s", error)
                    break
                for index in lost:
                    # Its settle will be refused: another execution holds it by now.
                    self.drop(batch_id, index)
