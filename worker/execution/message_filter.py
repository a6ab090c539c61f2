"""The filter of messages for Batchord's tasks, before they take a place in the pool."""

import logging
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker import request, state

from batchord.ledger.core.message_ids import is_run, use_cancel

logger = logging.getLogger(__name__)


class Request(request.Request):
    """A message that publishing could have sent; any other is refused with a line in the log.

    Refused here, where it costs nothing: what fails in a thread of the pool before the task begins
    keeps its place there for good.
    """

    _told = False

    def __init__(self, message: Any, **kwargs: Any) -> None:
        # The body as it was decoded, so that the task's tracer need not decode it again.
        super().__init__(message, **{**kwargs, "body": message.payload, "decoded": True})
        match message.payload:
            case [[], dict(arguments), dict()] if is_run(self.name, arguments):
                return
        raise InvalidTaskError("not the arguments that we publish")

    def revoked(self) -> bool:
        """Return False: every repair of a batch reuses the task's id, and would be discarded.

        Revocations by id and by stamp, those of a `--statedb` too, are told in the log.
        """
        stamps = self.stamped_headers or ()
        if self.id in state.revoked or any(stamp in state.revoked_stamps for stamp in stamps):
            self._tell()
        return False

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Tell in the log that `cancel` does it: a killed child costs its item an attempt."""
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            logger.warning("%s", use_cancel(self.id))
