"""The validation of batches, in threads of every server, each batch under a lease.

A server that dies is followed by another, or by itself once it is started again: the batch is read
again from its first line, and submitted under the same id, so that it is made once.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from batchord.chains.errors import BatchordError
from batchord.gateway.backend import Backend
from batchord.gateway.batches.file_check import FileCheck, Problem, raw_lines
from batchord.gateway.batches.submission import is_submitted, submit_file
from batchord.gateway.maintenance import delete_bytes
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.errors import SubmitRefused, concerns_all
from batchord.ledger.storage.api_batches import ApiBatch
from batchord.ledger.storage.file_store import FileStoreUnavailable

logger = logging.getLogger(__name__)

#: Batches that a server validates at a time.
_THREADS: Final = 2
#: Seconds between two looks for batches that another server has left.
_LOOK: Final = 1.0
#: Times that a server's own error ends a validation before the batch fails.
_MOST_TRIES: Final = 5


class Validator:
    """Validates batches until it is stopped."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lease = backend.settings.lease
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._held: set[str] = set()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (
                *((f"validator-{number}", self._work) for number in range(_THREADS)),
                ("validator-leases", self._renew),
            )
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads; what they validate is left to the next server."""
        self._stop.set()
        self.wake()
        for thread in self._threads:
            thread.join(timeout=2)

    def wake(self) -> None:
        """Look at once: a batch was created."""
        with self._news:
            self._news.notify_all()

    def _work(self) -> None:
        while not self._stop.is_set():
            if not self._safely(self._turn):
                with self._news:
                    self._news.wait(_LOOK)

    def _safely(self, do: Callable[[], bool]) -> bool:
        try:
            return do()
        except Exception as error:
            if not isinstance(error, BatchordError):
                logger.error("not validated yet", exc_info=error)
            elif not self._stop.is_set():
                logger.warning("not validated yet: %s", error)
            return False

    def _turn(self) -> bool:
        batch_id = self._backend.batches.take(lease=self._lease)
        if batch_id is None:
            return False
        self._held.add(batch_id)
        try:
            [batch] = self._backend.batches.of([batch_id])
            if batch is None or batch.status != "validating":
                self._backend.batches.conclude(batch_id, "failed")  # it is in the list alone
            else:
                self._validate(batch)
        finally:
            self._held.discard(batch_id)
        return True

    def _renew(self) -> None:
        while not self._stop.wait(self._lease / 4):
            if held := list(self._held):
                self._safely(lambda held=held: self._beat(held))  # type: ignore[misc]

    def _beat(self, held: list[str]) -> bool:
        self._backend.batches.renew(held, lease=self._lease)
        return True

    def _validate(self, batch: ApiBatch) -> None:
        try:
            self._read(batch)
        except (SubmitRefused, Problem) as error:
            # It has passed the validation and is refused all the same.
            problem = error if isinstance(error, Problem) else Problem("invalid_file", str(error))
            self._fail(batch, [problem.fields()])
        except FileNotFoundError:
            self._fail(batch, [Problem("file_not_found", "The input file is gone.").fields()])
        except Exception as error:
            if concerns_all(error) or isinstance(error, (FileStoreUnavailable, OSError)):
                raise
            if self._backend.batches.count_try(batch.id) < _MOST_TRIES:
                raise
            logger.error("validation given up batch=%s", batch.id, exc_info=error)
            self._fail(batch, [Problem("internal_error", "The server had an error.").fields()])

    def _read(self, batch: ApiBatch) -> None:
        backend = self._backend
        if is_submitted(backend, batch.id):
            # By a server that died before it could say so, and whether workers read the file.
            self._submitted(batch, {}, reads_file=True)
            return
        if batch.cancelling_at is not None:
            self._end(batch, "cancelled", {})
            return
        with backend.bytes.open(batch.input_file_id) as file:
            check = FileCheck(batch, backend.settings)
            for line in raw_lines(file, backend.settings.file_line_bytes):
                if self._stop.is_set() or not check.take(line):
                    break
            crash_point("validation-half")
            if self._stop.is_set():
                return
            if problems := check.end():
                self._fail(batch, problems)
                return
            file.seek(0)
            reads_file = submit_file(backend, batch, file)
        crash_point("validation-before-conclude")
        fields = {"model": check.model, "lines": str(check.count)}
        self._submitted(batch, fields, reads_file=reads_file)

    def _fail(self, batch: ApiBatch, problems: list[dict[str, Any]]) -> None:
        self._end(batch, "failed", {"errors": problems})

    def _submitted(self, batch: ApiBatch, fields: dict[str, Any], *, reads_file: bool) -> None:
        self._end(batch, "submitted", fields, reads_file=reads_file)
        [now] = self._backend.batches.of([batch.id])
        if now is not None and now.cancelling_at is not None:
            self._backend.control.cancel(batch.id)

    def _end(
        self, batch: ApiBatch, status: Any, fields: dict[str, Any], *, reads_file: bool = False
    ) -> None:
        tenant = self._backend.keys.tenants.get(batch.tenant)
        webhook = ("", "") if tenant is None else tenant.webhook
        self._backend.batches.conclude(batch.id, status, fields, webhook=webhook)
        if reads_file:
            return
        files, file_id = self._backend.files, batch.input_file_id
        files.read_no_more(file_id, batch.id)
        if files.of([file_id]) == [None]:
            delete_bytes(self._backend, file_id)  # it was deleted meanwhile
