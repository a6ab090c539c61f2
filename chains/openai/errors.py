"""Errors of the OpenAI SDK in our own words: the one place that knows them."""

import email.utils
import json
import math
import time
from collections.abc import Iterator, Mapping
from traceback import walk_tb
from typing import Any

import openai

from batchord.chains.errors import ChainError, OperatorNeeded, RetryLater
from batchord.chains.explain import MAX_RAW, mask
from batchord.chains.openai.empty_accounts import cannot_pay
from batchord.chains.openai.error_body import Fault, fault_in, said_in, text_of

#: An error inside of an answer that names no code is as if the provider's own provider had failed.
_NO_CODE = 502

#: Statuses below 500, other than 429, that may pass.
_PASSING = {408: "timeout", 409: "conflict"}
_OPERATOR = {401: "authentication_error", 403: "permission_denied", 404: "model_not_found"}
_ITEM = {422: "unprocessable"}
_CURES = {
    "authentication_error": "check OPENAI_API_KEY",
    "permission_denied": "the key may not do this",
    "model_not_found": "check the model's name and OPENAI_BASE_URL",
    "insufficient_quota": "the account has no quota left",
    "redirected": "set OPENAI_BASE_URL to where it really is",
}


def translation(error: BaseException) -> ChainError | None:
    """Translate an error of the SDK, most specific first; None if it is not of the SDK."""
    match error:
        case openai.APIStatusError():
            return _of_status(error)
        case openai.APIConnectionError():
            return _of_connection(error)
        case openai.LengthFinishReasonError():
            return ChainError(
                "the answer was cut off at the token limit: allow more tokens", code="length"
            )
        case openai.ContentFilterFinishReasonError():
            return ChainError("the content filter withheld the answer", code="content_filter")
        case openai.APIResponseValidationError():
            return ChainError(
                mask(f"not an answer of the API: {error}"),
                code="invalid_output",
                http_status=error.status_code,
            )
        case openai.APIError():
            return ChainError(mask(str(error)), code=error.code or "bad_request")
        case openai.OpenAIError() if "api_key" in str(error) or "credentials" in str(error).lower():
            return OperatorNeeded(
                "no API key: set OPENAI_API_KEY (any text will do for a server without keys)",
                code="authentication_error",
            )
        case openai.OpenAIError():
            return ChainError(mask(str(error)), code=type(error).__name__)
        case ValueError() | TypeError() | LookupError():
            return _of_langchain(error)
    return None


_LANGCHAIN = "langchain_core.language_models.chat_models"
#: Messages of langchain-openai for an invalid answer.
_NO_ANSWERS = (
    "Unexpected response type from OpenAI-compatible endpoint",
    "Response missing 'choices' key",
    "Received response with null value for 'choices'",
)


def _of_langchain(error: Exception) -> ChainError | None:
    """Translate langchain-openai's exception for an error inside of an answer; else None."""
    said: Any = error.args[0] if len(error.args) == 1 else None
    if isinstance(error, ValueError) and type(said).__module__.startswith("openai."):
        said = said.model_dump()
    if isinstance(error, ValueError) and isinstance(said, Mapping) and "message" in said:
        fault = fault_in({"error": said})
        return None if fault is None else of_fault(fault, text_of(said))
    if isinstance(said, str) and said.startswith(_NO_ANSWERS):
        return RetryLater(mask(said), code="invalid_output", raw=said)
    places = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    if isinstance(error, json.JSONDecodeError) and any(n.startswith("openai.") for n in places):
        return RetryLater(
            "the provider's answer is not JSON (check OPENAI_BASE_URL)",
            code="invalid_output",
            raw=error.doc[:MAX_RAW],
        )
    if isinstance(error, IndexError) and places[-1:] == [_LANGCHAIN]:
        return RetryLater("the provider's answer has no choices", code="invalid_output")
    return None


def _of_status(error: openai.APIStatusError) -> ChainError:
    response = error.response
    if 300 <= error.status_code < 400:
        place = response.headers.get("location") or "another address"
        message = mask(f"the provider sends requests on to {place[:500]}")
        return _operator(message, "redirected", error.status_code)
    body = _body_of(error)
    made = of_status(
        error.status_code,
        said_in(body),
        otherwise=f"the provider answered with status {error.status_code}",
        after=retry_after(response.headers),
    )
    made.raw = text_of(body) or None
    return made


def _body_of(error: openai.APIStatusError) -> Any:
    """Return the whole body, parsed if it is JSON; the SDK keeps only a part of it."""
    try:
        text = error.response.text
    except Exception:  # noqa: BLE001
        return error.body  # a stream that was not read
    try:
        return json.loads(text) if text.strip() else error.body
    except (ValueError, RecursionError):
        return text


def of_fault(fault: Fault, raw: str, after: float | None = None) -> ChainError:
    """Make the error that the body of an answer with status 200 names, by its own code."""
    made = of_status(
        fault.status or _NO_CODE,
        fault.said,
        otherwise="the provider's answer is an error without words",
        after=after if after is not None else fault.after,
    )
    made.http_status, made.raw = fault.status, raw
    return made


def of_status(
    status: int, said: Mapping[str, Any], *, otherwise: str, after: float | None = None
) -> ChainError:
    """Make the error of an answer with this status and body; `otherwise`: without a message."""
    # The provider's own words, without the SDK's "Error code: 400 - " before them.
    words, code = said.get("message"), said.get("code")
    message = mask(words if isinstance(words, str) and words else otherwise)
    if cannot_pay(status, said):
        return _operator(message, "insufficient_quota", status)
    later = "rate_limited" if status == 429 else _PASSING.get(status)
    if later is not None or status >= 500:
        return RetryLater(message, code=later or "server_error", after=after, http_status=status)
    if status in _OPERATOR:
        return _operator(message, _OPERATOR[status], status)
    if code == "content_filter":
        return ChainError(message, code="content_filter", http_status=status)
    return ChainError(message, code=_ITEM.get(status, "bad_request"), http_status=status)


def _operator(message: str, code: str, status: int) -> OperatorNeeded:
    error = OperatorNeeded(f"{message} ({_CURES[code]})", code=code, http_status=status)
    error.of_one_call = code != "redirected"
    return error


def _of_connection(error: openai.APIConnectionError) -> RetryLater:
    if _timed_out(error):
        return RetryLater("the provider did not answer in time", code="timeout")
    cause = next(_causes(error), None)
    detail = f": {mask(str(cause))}" if cause is not None and str(cause) else ""
    return RetryLater(f"the provider cannot be reached{detail}", code="connection_error")


def _timed_out(error: openai.APIConnectionError) -> bool:
    """By cause and not by class: the aiohttp transport calls a refused connection a timeout."""
    for cause in _causes(error):
        if isinstance(cause, TimeoutError):
            return True
        if isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp"):
            return False
    return isinstance(error, openai.APITimeoutError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    cause = error.__cause__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the answer asks to wait, or None if it has no valid time.

    Read from `retry-after-ms`, or `retry-after` in seconds or as a date.
    """
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name) or "")
        except ValueError:
            continue
        return max(0.0, seconds / divisor) if math.isfinite(seconds) else None
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after") or "")
    except ValueError:
        return None
    return max(0.0, date.timestamp() - time.time())
