"""What Celery makes of a message for one of our tasks, before it takes a place in the pool."""

from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker import request

from ledger.wire import is_run


class Request(request.Request):
    """A message that publishing could have sent; any other is refused with a line in the log.

    Refused here, where it costs nothing: what fails in a thread of the pool before the task begins
    keeps its place there for good.
    """

    def __init__(self, message: Any, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        match message.payload:
            case [[], dict(arguments), dict()] if is_run(self.name, arguments):
                return
        raise InvalidTaskError("not the arguments that we publish")
