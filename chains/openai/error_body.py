"""Errors in the body of an answer, in the forms of all known providers."""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from batchord.chains.openai.empty_accounts import PAYMENT_REQUIRED, cannot_pay

#: Characters of a refusal's body that are kept.
MAX_BODY: Final = 4_000
#: Characters of words that are taken from a body without a form.
_MAX_WORDS: Final = 500

#: Where bodies have their reason, the most telling field first.
_REASONS: Final = (
    *("message", "error", "detail", "errors", "msg", "error_description", "reason", "title"),
    *("error_message", "errorMessage", "Message", "description"),
)
#: How deep a reason may lie.
_MAX_DEPTH: Final = 6

#: The status that a provider's word for an error stands for, where no number is given.
_STATUS_OF: Final = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "rate_limited": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "api_error": 500,
    "internal": 500,
    "overloaded_error": 503,
    "overloaded": 503,
    "service_unavailable": 503,
    "unavailable": 503,
    "timeout": 408,
    "timeout_error": 408,
    "request_timeout": 408,
    "vector_store_timeout": 408,
    "deadline_exceeded": 408,
    "invalid_request_error": 400,
    "invalid_request": 400,
    "invalid_prompt": 400,
    "invalid_argument": 400,
    "bad_request": 400,
    "badrequesterror": 400,
    "content_filter": 400,
    "context_length_exceeded": 400,
    "unprocessable_entity": 422,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "unauthorized": 401,
    "payment_required": 402,
    "insufficient_balance": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "forbidden": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "notfounderror": 404,
    "not_found": 404,
}

#: How answers end that broke off: what they say until there is no answer.
_BROKEN_ENDS: Final = (
    *("error", "abort", "aborted", "cancelled", "failed", "network_error", "timeout"),
    "insufficient_system_resource",
)

_TAGS: Final = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.I | re.S)
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title[^>]*>", re.I | re.S)
_LOOKS_HTML: Final = re.compile(r"\s*<(!doctype|html|head|body|h1|title|p|center)\b", re.I)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An error that the body of an answer names, whatever the HTTP status was."""

    #: The status that its code stands for; None if it names none that is known.
    status: int | None
    #: `code`, `type` and `message`, as far as they are there.
    said: Mapping[str, Any]
    #: Seconds to wait, if the body says so.
    after: float | None = None


def reason(body: Any) -> str | None:
    """Return the provider's own words from a body in any form, or None."""
    words = _words(body, 0)
    return None if words is None else words.strip()[:_MAX_WORDS] or None


def said_in(body: Any) -> dict[str, Any]:
    """Return `code`, `type` and `message` of an error's body; the message is found in any form."""
    error = _error_of(body)
    fields = error if isinstance(error, Mapping) else {}
    code, kind = fields.get("code"), fields.get("type")
    message = fields.get("message")
    return {
        "code": code if isinstance(code, (str, int)) else None,
        "type": kind if isinstance(kind, str) else None,
        "message": message if isinstance(message, str) and message else reason(body),
    }


def fault_in(body: Any) -> Fault | None:
    """Return the error in the body of an answer with status 200, or None."""
    if not _is_error(body):
        return None
    said = said_in(body)
    error = _error_of(body)
    fields = error if isinstance(error, Mapping) else {}
    words = [said["code"], fields.get("status"), fields.get("status_code"), said["type"]]
    after: Any = fields.get("retry_after")
    status = next((status for word in words if (status := _status(word)) is not None), None)
    if cannot_pay(None, said) and not any(map(_number, words)):
        status = PAYMENT_REQUIRED
    elif (
        status is None and isinstance(body, Mapping) and _is_failed_response(body) and said["code"]
    ):
        status = 400  # all codes that may pass are known of this API
    return Fault(
        status=status,
        said=said,
        after=float(after) if type(after) in (int, float) and 0 <= after < 10**6 else None,
    )


def text_of(body: Any) -> str:
    """Return the body as a text of at most `MAX_BODY` characters, JSON if it is not longer."""
    if isinstance(body, str):
        return body[:MAX_BODY]
    try:
        return json.dumps(body, ensure_ascii=False)[:MAX_BODY]
    except (ValueError, TypeError, RecursionError):
        return repr(type(body).__name__)


def _is_error(body: Any) -> bool:
    if isinstance(body, list):
        return len(body) == 1 and _is_error(body[0])
    if not isinstance(body, Mapping):
        return False
    if body.get("error"):
        return True
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return bool(choices[0].get("error")) or choices[0].get("finish_reason") in _BROKEN_ENDS
    return (
        body.get("object") == "error"
        or (body.get("type") == "error" and "message" in body)
        or _is_failed_response(body)
    )


def _is_failed_response(body: Mapping[str, Any]) -> bool:
    return body.get("status") in ("failed", "cancelled") and body.get("object") == "response"


def _error_of(body: Any) -> Any:
    """Return the part of the body that has the error's code and message."""
    if isinstance(body, list) and len(body) == 1:
        return _error_of(body[0])
    if not isinstance(body, Mapping):
        return body
    if body.get("error"):
        return body["error"]
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        first = choices[0]
        return first.get("error") or {"message": _ended(first) + _rest(first)}
    if _is_failed_response(body):
        return {"message": f"the provider's answer is {body['status']}"}
    return body


def _ended(choice: Mapping[str, Any]) -> str:
    native = choice.get("native_finish_reason")
    more = f" ({native})" if isinstance(native, str) and native else ""
    return f"the answer broke off: its finish_reason is {choice.get('finish_reason')}{more}"


def _rest(choice: Mapping[str, Any]) -> str:
    """Return the beginning of the text that the answer has before its error."""
    message = choice.get("message")
    content = message.get("content") if isinstance(message, Mapping) else None
    return f": {content[:200]}" if isinstance(content, str) and content else ""


def _status(word: Any) -> int | None:
    if isinstance(word, str):
        known = _STATUS_OF.get(word.strip().lower())
        if known is not None:
            return known
    return _number(word)


def _number(word: Any) -> int | None:
    """Return the status that a field gives as a number, or None."""
    if isinstance(word, str):
        word = int(word) if word.isascii() and word.isdigit() and len(word) == 3 else None
    return word if type(word) is int and 400 <= word < 600 else None


def _words(body: Any, depth: int) -> str | None:
    if depth > _MAX_DEPTH:
        return None
    if isinstance(body, str):
        return _plain(body)
    if isinstance(body, list):
        found = [words for each in body[:5] if (words := _words(each, depth + 1)) is not None]
        return "; ".join(found) or None
    if isinstance(body, Mapping):
        for name in _REASONS:
            words = _words(body.get(name), depth + 1)
            if words is not None:
                return _place(body) + words
    return None


def _place(body: Mapping[str, Any]) -> str:
    """Format the place of a validation error: FastAPI's `loc`."""
    place = body.get("loc")
    if not isinstance(place, list) or not place:
        return ""
    return ".".join(str(part) for part in place[:10]) + ": "


def _plain(text: str) -> str | None:
    """Return the text; of an HTML page, its title and text."""
    text = text[:100_000]
    if _LOOKS_HTML.match(text):
        title = _TITLE.search(text)
        rest = html.unescape(_TAGS.sub(" ", text if title is None else text[title.end() :]))
        parts = ["" if title is None else html.unescape(title[1]), rest]
        text = ": ".join(" ".join(part.split()) for part in parts if part.strip())
    return text.strip() or None
