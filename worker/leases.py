"""Leases: while this process lives, what it holds stays its own."""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable

from chains.errors import BatchordError
from ledger.exchange import Exchange, Wish

logger = logging.getLogger(__name__)

#: Renewals per lease: a process that misses three in a row counts as dead.
RENEWALS = 4


class Leases:
    """Renews the leases of everything this process runs, in one thread.

    One thread for all, and not the items' own, so that a slow item is held however busy the loop
    and the pool are; a frozen or killed process stops renewing, which is the point.
    """

    def __init__(self, exchange: Exchange, *, lease: float) -> None:
        self._exchange = exchange
        self._interval = lease / RENEWALS
        self._held: dict[str, dict[int, str]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, items: Iterable[Wish]) -> None:
        """Keep the items' leases alive from now on."""
        with self._lock:
            for item in items:
                self._held[item.batch_id][item.index] = item.token
            if self._thread is None or not self._thread.is_alive():  # first use, or after a fork
                self._stop.clear()
                self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._thread.start()

    def drop(self, items: Iterable[Wish]) -> None:
        """Let the items' leases run out, where they are still these executions'."""
        with self._lock:
            for item in items:
                held = self._held.get(item.batch_id)
                if held is not None and held.get(item.index) == item.token:
                    del held[item.index]
                    if not held:
                        del self._held[item.batch_id]

    def stop(self) -> None:
        """End the thread; what is still held runs out."""
        self._stop.set()

    def _beat(self) -> None:
        while not self._stop.wait(self._interval):
            with self._lock:
                held = {batch_id: dict(items) for batch_id, items in self._held.items()}
            for batch_id, items in held.items():
                try:
                    lost = self._exchange.beat(batch_id, items)
                except BatchordError as error:
                    logger.warning("leases not renewed: %s", error)
                    break
                # Their settle will be refused: another execution holds them by now.
                self.drop(
                    Wish(batch_id=batch_id, index=index, token=items[index]) for index in lost
                )
