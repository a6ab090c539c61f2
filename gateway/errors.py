"""Errors in OpenAI's envelope: `{"error": {"message", "type", "param", "code"}}`."""

import logging
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from batchord.chains.errors import BatchordError
from batchord.ledger.errors import (
    DayBudgetUsed,
    LedgerUnavailable,
    ResumeRefused,
    RetryRefused,
    SubmitRefused,
    UnknownBatch,
)
from batchord.ledger.storage.file_store import FileStoreUnavailable

logger = logging.getLogger(__name__)

#: Seconds after which a caller may try again while Redis or the file store cannot be reached.
_TRY_AGAIN: Final = 2


class ApiError(Exception):
    """An answer with an error.

    `retry_after`: seconds; the SDK waits as long before it retries. `retry`: False has it not
    retry, also where it would by the status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type_: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        retry: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type_
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.retry = retry

    def response(self) -> Response:
        """Return the answer."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, round(self.retry_after)))
        if not self.retry:
            headers["x-should-retry"] = "false"
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse({"error": error}, self.status, headers)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return a 400: the request is wrong, and would be again."""
    return ApiError(400, message, param=param, code=code)


def not_found(what: str, name: str) -> ApiError:
    """Return a 404; another tenant's things are as unknown as those that never were."""
    return ApiError(404, f"No such {what}: {name[:80]}", param="id", code=f"{what}_not_found")


def _unavailable(error: Exception) -> ApiError:
    # Not its text: it names hosts and folders, which the operator finds in the log.
    logger.error("not served: %s", error)
    return ApiError(
        503,
        "The server cannot reach its storage now: try again",
        type_="server_error",
        code="unavailable",
        retry_after=_TRY_AGAIN,
    )


def as_api_error(error: Exception) -> ApiError:
    """Return the answer to a request that has met this error."""
    match error:
        case ApiError():
            return error
        case HTTPException(status_code=404):
            return ApiError(
                404,
                "Unknown request URL: this server has /v1/files and /v1/batches, and an SDK's "
                "base URL ends in /v1",
            )
        case HTTPException(status_code=405):
            return ApiError(405, "Not allowed method: check the URL and the method")
        case HTTPException():
            return ApiError(error.status_code, str(error.detail))
        case SubmitRefused() | ResumeRefused() | RetryRefused() | DayBudgetUsed():
            return invalid(str(error))
        case UnknownBatch():
            return not_found("batch", error.batch_id)
        case LedgerUnavailable() | FileStoreUnavailable():
            return _unavailable(error)
    logger.error("not served", exc_info=error)
    return ApiError(500, "The server had an error", type_="server_error", code="internal_error")


async def answer_error(_: Request, error: Exception) -> Response:
    """Answer with the error (Starlette's exception handler)."""
    return as_api_error(error).response()


HANDLERS: Final[dict[Any, Any]] = {
    HTTPException: answer_error,
    ApiError: answer_error,
    BatchordError: answer_error,
    Exception: answer_error,
}
