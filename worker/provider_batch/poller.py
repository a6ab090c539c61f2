"""The poller of provider mode: it drives the reconciling passes over batches at their provider.

A thread beside the sweep, which wakes it: a call of the provider may take minutes, and must not
hold up the repair of other batches. One worker at a time holds a batch.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from celery import Celery

from batchord.ledger.storage.provider_parts import ProviderParts
from batchord.worker.execution.lease_heartbeat import RENEWALS
from batchord.worker.execution.resilient_threads import survives
from batchord.worker.execution.worker_context import WorkerContext
from batchord.worker.provider_batch.reconciler import Reconciler


class Poller:
    """A thread that reconciles batches in provider mode, in the order of the sweep's calls."""

    def __init__(self, app: Celery, runtime: WorkerContext) -> None:
        self._app = app
        self._runtime = runtime
        self._parts = ProviderParts(runtime.store)
        self._named: dict[str, None] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def name(self, batch_id: str) -> None:
        """Schedule a reconciling pass over this batch; returns at once."""
        with self._lock:
            self._named[batch_id] = None
            if self._thread is None:
                # Only where a batch is in provider mode.
                self._thread = threading.Thread(target=self._loop, name="poller", daemon=True)
                self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """Begin no further pass; an unfinished step is found again by its note."""
        self._stop.set()
        self._wake.set()

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                named, self._named = list(self._named), {}
            for batch_id in named:
                if self._stop.is_set():
                    return
                # An error in one batch must not stop the others.
                survives(f"poller batch={batch_id}", partial(self._look, batch_id))

    def _look(self, batch_id: str) -> None:
        with self._held(batch_id) as held:
            if held is not None:
                Reconciler(self._app, self._runtime, batch_id, held).turn()

    @contextmanager
    def _held(self, batch_id: str) -> Iterator[threading.Event | None]:
        """Hold the batch while the block runs; None if another worker does.

        The event is set once another worker may hold it.
        """
        token, lost, done = secrets.token_hex(8), threading.Event(), threading.Event()
        lease = self._runtime.settings.lease
        if not self._parts.hold(batch_id, token, lease):
            yield None
            return

        def still_held() -> None:
            if not self._parts.hold(batch_id, token, lease):
                lost.set()

        def renew() -> None:
            while not done.wait(lease / RENEWALS):
                if not survives(f"poller's lease batch={batch_id}", still_held):
                    lost.set()

        thread = threading.Thread(target=renew, name="poller-lease", daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            done.set()
            thread.join()
            self._parts.hold(batch_id, token, 0)
