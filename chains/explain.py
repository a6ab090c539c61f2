"""Say what any exception means for its item: its code, its words without secrets, its step."""

import json
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pydantic

from batchord.chains.errors import (
    ChainError,
    InvalidInput,
    OperatorNeeded,
    RetryLater,
    _set_path,
    step_of,
)

#: Characters of an error's message that are kept.
MAX_MESSAGE = 2_000

#: Characters of a model's answer that are kept in an error.
MAX_RAW = 20_000

#: Characters of an error's code that are kept.
MAX_CODE = 200

#: Characters of the longest API key that is looked for across the end of a text.
_LONGEST_KEY = 1_000

#: Shorter secrets are left alone: replacing them would garble ordinary words.
_MIN_SECRET = 8

#: Environment variables whose values are keys.
_secret_variables = ["OPENAI_API_KEY"]

_KEY_PATTERN = re.compile(r"\bsk-[A-Za-z0-9_-]{8,}")


@dataclass(frozen=True, kw_only=True)
class ErrorInfo:
    """An error as it is recorded: typed, bounded, without secrets."""

    code: str
    #: At most `MAX_MESSAGE` characters.
    message: str
    step: str | None = None
    retryable: bool = False
    http_status: int | None = None
    #: Seconds to wait before the next try, if the provider said so.
    after: float | None = None
    #: The model's answer, where it is the answer that is wrong; at most `MAX_RAW` characters.
    raw: str | None = None
    #: Whether no call can succeed until a person acts.
    needs_operator: bool = False


def explain(error: BaseException) -> ErrorInfo:
    """Say what any exception means for its item; never raises.

    Errors of the OpenAI SDK and of pydantic are understood also when code that is not ours
    raised them. Whatever else it is, its class name is the code and it is not retryable.
    """
    try:
        return _explained(error)
    except Exception:  # noqa: BLE001
        # A class of the user's may raise from any of its attributes.
        return ErrorInfo(code=_class_name(error), message=_message(error))


def _explained(error: BaseException) -> ErrorInfo:
    ours = as_chain_error(error)
    step = step_of(error)
    if ours is None:
        return ErrorInfo(code=_class_name(error), message=_message(error), step=step)
    # A subclass of the user's may have left out, or set to anything, what ours promise.
    code, raw = getattr(ours, "code", None), getattr(ours, "raw", None)
    status, after = getattr(ours, "http_status", None), getattr(ours, "after", None)
    return ErrorInfo(
        code=_bounded(code, MAX_CODE) if isinstance(code, str) and code else _class_name(ours),
        message=_message(ours),
        step=own if isinstance(own := getattr(ours, "_step", None), str) else step,
        retryable=bool(ours.retryable),
        http_status=status if type(status) is int else None,
        after=_seconds(after),
        raw=None if raw is None else bounded_raw(raw),
        needs_operator=isinstance(ours, OperatorNeeded),
    )


def bounded_raw(raw: object) -> str:
    """Return text, or a value as JSON where possible, cut to an error's `raw` length."""
    try:
        text = raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, default=str)
    except Exception:  # noqa: BLE001
        return f"<{type(raw).__name__}>"
    return _bounded(text, MAX_RAW)


def as_chain_error(error: BaseException) -> ChainError | None:
    """Translate an exception to a ChainError, or None if it is unknown; never raises."""
    if isinstance(error, ChainError):
        return error
    try:
        return _translated(error)
    except Exception:  # noqa: BLE001
        return None


def _translated(error: BaseException) -> ChainError | None:
    if isinstance(error, pydantic.ValidationError):
        if "langchain_core" in sys.modules:
            from batchord.chains.langchain.inspection import is_tool_input

            if is_tool_input(error):
                return InvalidInput(validation_message(error))
        return ChainError(validation_message(error), code="invalid_output")
    if "openai" in sys.modules:
        # The SDK takes long to import; an error of its own can only exist once it is loaded.
        from batchord.chains.openai import errors

        translated = errors.translation(error)
        if translated is not None:
            return translated
    if isinstance(error, TimeoutError):
        return RetryLater(str(error) or "timed out", code="timeout")
    return None


def validation_message(error: pydantic.ValidationError) -> str:
    """Format the places and expectations of a validation error, without the values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    parts = []
    for detail in found[:10]:
        place = ".".join(str(part) for part in detail["loc"])
        parts.append(f"{place}: {detail['msg']}" if place else detail["msg"])
    more = f"; and {len(found) - 10} more" if len(found) > 10 else ""
    return f"does not fit {error.title}: {'; '.join(parts)}{more}"


def mask(text: str) -> str:
    """Mask the configured API keys, and anything that looks like a key, in a text."""
    for variable in _secret_variables:
        secret = os.environ.get(variable, "")
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, "***")
    return _KEY_PATTERN.sub("***", text)


def mask_variable(name: str) -> None:
    """Mask the value of this environment variable, too: it is a key."""
    if name not in _secret_variables:
        _secret_variables.append(name)


def whole_text(text: str) -> str:
    """Replace lone surrogates, which cannot be recorded, by U+FFFD."""
    return (
        text
        if text.isascii()
        else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def set_path(error: BaseException, path: Sequence[str]) -> None:
    """Say at which path the error was raised, `["summary", "Chat"]`."""
    _set_path(error, list(path))


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001
        text = ""
    return _bounded(text or _class_name(error), MAX_MESSAGE)


def _class_name(error: BaseException) -> str:
    return type(error).__name__.encode(errors="replace").decode()[:MAX_CODE] or "Exception"


def _seconds(after: object) -> float | None:
    known = isinstance(after, (int, float)) and math.isfinite(after)
    return max(0.0, float(after)) if known and isinstance(after, (int, float)) else None


def _bounded(text: str, most: int) -> str:
    # Cut before it is masked, which takes long for a huge one; a key that this cuts in two is
    # behind what is kept. A lone surrogate could not be recorded as JSON later.
    text = mask(text[: most + _LONGEST_KEY]).encode(errors="replace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


class PutOff(RetryLater):
    """An error whose call shall be made again in `seconds`, without waiting for it in a slot.

    Only within a submitted batch. Message and code are those of the error.
    """

    def __init__(self, error: BaseException, seconds: float, *, outage: bool = False) -> None:
        info = explain(error)
        #: The provider is down: that costs the item nothing.
        self.outage = outage
        super().__init__(
            info.message,
            code=info.code,
            after=seconds,
            http_status=info.http_status,
            step=info.step,
            raw=info.raw,
        )
