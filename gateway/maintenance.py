"""Deletion of bytes whose time is over, once no batch reads them."""

import logging
import threading
from typing import Final

from batchord.chains.errors import BatchordError
from batchord.gateway.backend import Backend
from batchord.ledger.errors import UnknownBatch

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


class Maintenance:
    """A thread that deletes bytes as they come due. Several servers may do it side by side."""

    def __init__(self, backend: Backend) -> None:
        self._fleet = backend
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
            try:
                for file_id in self._fleet.files.due(limit=_AT_ONCE):
                    delete_bytes(self._fleet, file_id)
            except (BatchordError, OSError) as error:
                logger.warning("files not deleted yet: %s", error)
            self._stop.wait(self._fleet.settings.sweep_interval)
