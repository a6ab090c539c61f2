"""Work that comes due by itself: bytes to delete, and batches that wait for a new day's budget."""

import logging
import threading
from contextlib import suppress
from typing import Final

from batchord.chains.errors import BatchordError
from batchord.gateway.backend import Backend
from batchord.ledger.errors import DayBudgetUsed, UnknownBatch
from batchord.ledger.models import BatchRecord, BatchStatus

logger = logging.getLogger(__name__)

#: Files that are looked at in one turn.
_AT_ONCE: Final = 100


def delete_bytes(backend: Backend, file_id: str) -> None:
    """Delete the bytes of a file that is forgotten, unless a batch reads them: then later."""
    if any(_reads(backend, batch_id) for batch_id in backend.files.readers(file_id)):
        backend.files.put_off(file_id)
        return
    backend.bytes.delete(file_id)
    backend.files.deleted(file_id)


def _reads(backend: Backend, batch_id: str) -> bool:
    """Whether the batch is validated, or may run lines whose payloads are in its input file."""
    try:
        backend.reader.status(batch_id)
    except UnknownBatch:
        [batch] = backend.batches.of([batch_id])
        return batch is not None and batch.status == "validating"
    return True


def resume_waiting(backend: Backend, tenant: str) -> None:
    """Resume a tenant's batches that were paused as the day's budget was used."""
    # Before they are resumed: one that is paused again meanwhile is noted again.
    backend.day_budgets.none_waits(tenant)
    for found in backend.reader.look(backend.batches.live(tenant)):
        if isinstance(found, BatchRecord) and _waits_for_tomorrow(found):
            with suppress(DayBudgetUsed, UnknownBatch):
                backend.control.resume(found.id)


def _waits_for_tomorrow(record: BatchRecord) -> bool:
    reason = record.reason if record.status is BatchStatus.PAUSED else None
    return reason is not None and reason.code == "day_budget_exceeded"


class Maintenance:
    """A thread that does what comes due. Several servers may do it side by side."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        #: Tenants that this process has not looked at: a server may have died while it resumed.
        self._unseen = set(backend.keys.tenants)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="maintenance", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        while not self._stop.is_set():
            for do in (self._delete, self._resume):
                try:
                    do()
                except (BatchordError, OSError) as error:
                    logger.warning("maintenance put off: %s", error)
            self._stop.wait(self._backend.settings.sweep_interval)

    def _delete(self) -> None:
        for file_id in self._backend.files.due(limit=_AT_ONCE):
            delete_bytes(self._backend, file_id)

    def _resume(self) -> None:
        for tenant in self._backend.keys.tenants.values():
            if tenant.name in self._unseen or self._backend.day_budgets.may_go_on(tenant.name):
                resume_waiting(self._backend, tenant.name)
                self._unseen.discard(tenant.name)
