"""Meanings of exceptions for their item."""

import copy
import email.utils
import pickle
import time
from typing import Any

import aiohttp
import httpx2
import openai
import pydantic
import pytest

from batchord.chains import (
    ChainError,
    ChainNotFound,
    InvalidInput,
    OperatorNeeded,
    RetryLater,
    explain,
)
from batchord.chains.explain import MAX_MESSAGE
from batchord.chains.openai.errors import retry_after, translation

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")


def status_error(
    kind: type[openai.APIStatusError], status: int, code: str | None = None, **headers: str
) -> openai.APIStatusError:
    response = httpx2.Response(status, request=REQUEST, headers=headers)
    return kind("told to fail", response=response, body={"code": code, "type": None})


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (status_error(openai.APIStatusError, 408), RetryLater, "timeout"),
        (status_error(openai.ConflictError, 409), RetryLater, "conflict"),
        (status_error(openai.RateLimitError, 429), RetryLater, "rate_limited"),
        (status_error(openai.InternalServerError, 500), RetryLater, "server_error"),
        (status_error(openai.InternalServerError, 503), RetryLater, "server_error"),
        (
            status_error(openai.RateLimitError, 429, "insufficient_quota"),
            OperatorNeeded,
            "insufficient_quota",
        ),
        (status_error(openai.AuthenticationError, 401), OperatorNeeded, "authentication_error"),
        (status_error(openai.PermissionDeniedError, 403), OperatorNeeded, "permission_denied"),
        (status_error(openai.NotFoundError, 404), OperatorNeeded, "model_not_found"),
        (status_error(openai.BadRequestError, 400), ChainError, "bad_request"),
        (
            status_error(openai.BadRequestError, 400, "content_filter"),
            ChainError,
            "content_filter",
        ),
        (status_error(openai.UnprocessableEntityError, 422), ChainError, "unprocessable"),
        (status_error(openai.APIStatusError, 413), ChainError, "bad_request"),
    ],
)
def test_an_answer_with_an_error_says_what_to_do_next(
    error: openai.APIStatusError, kind: type[ChainError], code: str
) -> None:
    ours = translation(error)
    assert type(ours) is kind
    assert (ours.code, ours.http_status) == (code, error.status_code)
    assert explain(error).code == code
    assert explain(error).retryable is (kind is RetryLater)


def connection_error(*causes: Exception, timeout: bool = True) -> openai.APIConnectionError:
    error: Exception = (
        openai.APITimeoutError(request=REQUEST)
        if timeout
        else openai.APIConnectionError(request=REQUEST)
    )
    assert isinstance(error, openai.APIConnectionError)
    above: Exception = error
    for cause in causes:
        above.__cause__ = cause
        above = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        # The aiohttp transport calls every lost connection a connect timeout.
        (
            connection_error(httpx2.ConnectTimeout(""), ConnectionRefusedError(111, "refused")),
            "connection_error",
        ),
        (
            connection_error(httpx2.ConnectTimeout(""), aiohttp.ServerDisconnectedError()),
            "connection_error",
        ),
        (connection_error(httpx2.ReadTimeout(""), aiohttp.SocketTimeoutError()), "timeout"),
        (connection_error(httpx2.ReadTimeout("")), "timeout"),
        (connection_error(), "timeout"),
        (connection_error(httpx2.ConnectError(""), timeout=False), "connection_error"),
    ],
)
def test_a_connection_is_judged_by_the_cause_and_not_by_the_class(
    error: openai.APIConnectionError, code: str
) -> None:
    info = explain(error)
    assert (info.code, info.retryable) == (code, True)


def test_a_circle_of_causes_is_followed_once() -> None:
    one, other = httpx2.ReadTimeout(""), httpx2.ReadTimeout("")
    error = connection_error(one, other)
    other.__cause__ = one
    assert explain(error).code == "timeout"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "300"}, 300.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wait_that_a_provider_asks_for_is_read(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds
    ours = translation(status_error(openai.RateLimitError, 429, **headers))
    assert isinstance(ours, RetryLater)
    assert ours.after == seconds


def test_the_wait_may_be_a_date() -> None:
    date = email.utils.formatdate(time.time() + 200, usegmt=True)
    assert 195 < (retry_after({"retry-after": date}) or 0) <= 200
    assert retry_after({"retry-after": email.utils.formatdate(0)}) == 0.0


class Answer(pydantic.BaseModel):
    score: int


def test_a_validation_error_names_the_place_and_not_the_value() -> None:
    with pytest.raises(pydantic.ValidationError) as raised:
        Answer.model_validate({"score": "canary"})
    info = explain(raised.value)
    assert info.code == "invalid_output"
    assert "score" in info.message
    assert "canary" not in info.message


def test_a_timeout_of_any_origin_may_be_tried_again() -> None:
    info = explain(TimeoutError())
    assert (info.code, info.message, info.retryable) == ("timeout", "timed out", True)


def test_any_other_error_is_known_by_its_class() -> None:
    info = explain(ZeroDivisionError("division by zero"))
    assert (info.code, info.message) == ("ZeroDivisionError", "division by zero")
    assert info.retryable is False
    assert info.step is None


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError(), "ValueError"),
        (Hostile(), "Hostile"),
        (ValueError("lone \udc80"), "lone ?"),
        (ValueError("x" * 3_000), "x" * (MAX_MESSAGE - 1) + "…"),
    ],
)
def test_a_message_can_always_be_recorded(error: Exception, message: str) -> None:
    assert explain(error).message == message


def test_a_key_never_appears_in_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-secret")
    assert "canary-secret" not in explain(ValueError("key canary-secret is bad")).message
    assert explain(ValueError("see sk-proj-abcdef123456")).message == "see ***"


@pytest.mark.parametrize(
    "error",
    [
        RetryLater("busy", after=2.0, http_status=429, step="a.b"),
        InvalidInput("no"),
        OperatorNeeded("no", code="insufficient_quota"),
        ChainNotFound("a", ["b"]),
    ],
)
def test_our_errors_survive_copies_and_pickles(error: Any) -> None:
    for made in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(made) is type(error)
        assert str(made) == str(error)
        assert vars(made) == vars(error)


def test_an_unknown_chain_is_one_line_that_names_the_cure() -> None:
    message = str(ChainNotFound("triage", ["b", "a"]))
    assert message.startswith("no chain is registered as 'triage' (known: a, b)")
    assert "--chains" in message
    assert "\n" not in message
