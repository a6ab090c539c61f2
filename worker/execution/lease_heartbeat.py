"""The lease heartbeat: while this process lives, it keeps the items that it has claimed."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial

from batchord.ledger.models import ItemStatus
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import ClaimRequest
from batchord.worker.execution.resilient_threads import survives

#: Renewals per lease: a process that misses three in a row counts as dead.
RENEWALS = 4

#: Seconds between two checks whether a batch with items running here was stopped.
WATCH = 1.0

#: Receives the batches whose running items shall stop, with the status that these items get.
OnStop = Callable[[dict[str, ItemStatus]], None]


class LeaseHeartbeat:
    """A thread that renews the leases of all items that this process runs.

    It is a thread of its own, so that a slow item keeps its lease however busy the loop and the
    pool are. A frozen or killed process stops renewing, which is the point.
    """

    def __init__(self, item_leases: ItemLeases, *, lease: float, on_stop: OnStop) -> None:
        self._item_leases = item_leases
        self._interval = lease / RENEWALS
        self._on_stop = on_stop
        self._held: dict[str, dict[int, str]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def hold(self, items: Iterable[ClaimRequest]) -> None:
        """Renew the items' leases from now on."""
        with self._lock:
            for item in items:
                self._held[item.batch_id][item.index] = item.token
            if self._closed:
                return
            if self._thread is None or not self._thread.is_alive():  # first use, or after a fork
                self._stop.clear()
                self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._thread.start()

    def drop(self, items: Iterable[ClaimRequest]) -> None:
        """Stop renewing the items' leases, if the same executions still hold them."""
        with self._lock:
            for item in items:
                held = self._held.get(item.batch_id)
                if held is not None and held.get(item.index) == item.token:
                    del held[item.index]
                    if not held:
                        del self._held[item.batch_id]

    def stop(self) -> None:
        """End the thread; the leases that are still held expire."""
        self._stop.set()

    def close(self) -> list[ClaimRequest]:
        """Stop renewing for good; return the items that are still held."""
        with self._lock:
            self._closed = True
            self._stop.set()
            return [
                ClaimRequest(batch_id=batch_id, index=index, token=token)
                for batch_id, items in self._held.items()
                for index, token in items.items()
            ]

    def _beat(self) -> None:
        due = time.monotonic() + self._interval
        while not self._stop.wait(min(WATCH, self._interval)):
            with self._lock:
                held = {batch_id: dict(items) for batch_id, items in self._held.items()}
            if held:
                survives("look at stopped batches", partial(self._look, list(held)))
            if time.monotonic() >= due:
                due = time.monotonic() + self._interval
                survives("leases", partial(self._renew, held))

    def _look(self, batch_ids: list[str]) -> None:
        self._on_stop(self._item_leases.stopping(batch_ids))

    def _renew(self, held: dict[str, dict[int, str]]) -> None:
        for batch_id, lost in self._item_leases.beat_all(held).items():
            items = held[batch_id]
            # Their settlement will be refused: another execution holds them by now.
            self.drop(
                ClaimRequest(batch_id=batch_id, index=index, token=items[index]) for index in lost
            )
