"""Every row of the error table, for each step that calls a provider, over the SDK and real HTTP."""

import socket
from collections.abc import Callable
from typing import Any

import pydantic
import pytest

from batchord.chains import (
    ChainError,
    Chat,
    Embed,
    OperatorNeeded,
    Responses,
    RetryLater,
    RetryPolicy,
    Runnable,
    Usage,
    explain,
)
from batchord.chains.runtime.item_context import scope
from tests.support.openai_server import OpenAIServer, Request

AT_ONCE = RetryPolicy(initial=0.0)

Make = Callable[..., Runnable[Any, Any]]

pytestmark = pytest.mark.usefixtures("server")
any_step = pytest.mark.parametrize("make", [Chat, Responses, Embed])
asking = pytest.mark.parametrize("make", [Chat, Responses])


class Verdict(pydantic.BaseModel):
    summary: str
    score: int


def limited(make: Make, limit: int, **options: Any) -> Runnable[Any, Any]:
    name = "max_tokens" if make is Chat else "max_output_tokens"
    return make(output_type=Verdict, **{name: limit}, **options)


def sent(server: OpenAIServer, make: Any) -> list[Request]:
    """Return the log lines of this step; a busy machine brings late those of an earlier test."""
    return [request for request in server.requests if request.path == make.endpoint]


def failure(step: Runnable[Any, Any]) -> ChainError:
    with pytest.raises(ChainError) as raised:
        step.invoke("hello")
    return raised.value


@any_step
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (408, "timeout"),
        (409, "conflict"),
        (429, "rate_limited"),
        (500, "server_error"),
        (502, "server_error"),
        (503, "server_error"),
    ],
)
def test_what_may_pass_is_called_again_until_the_policy_gives_up(
    server: OpenAIServer, make: Make, status: int, code: str
) -> None:
    server.fail_next(status, n=2)
    with scope() as run:
        assert make(retry=AT_ONCE).invoke("hello")
    assert run.usage is not None
    assert run.usage.requests == 3
    server.fail_when(None, status=status)
    error = failure(make(retry=AT_ONCE))
    assert isinstance(error, RetryLater)
    assert (error.code, error.http_status) == (code, status)
    assert len(sent(server, make)) == 6


@any_step
@pytest.mark.parametrize(
    ("status", "code", "kind", "ours"),
    [
        (400, None, ChainError, "bad_request"),
        (400, "content_filter", ChainError, "content_filter"),
        (422, None, ChainError, "unprocessable"),
        (401, None, OperatorNeeded, "authentication_error"),
        (403, None, OperatorNeeded, "permission_denied"),
        (404, None, OperatorNeeded, "model_not_found"),
        (429, "insufficient_quota", OperatorNeeded, "insufficient_quota"),
    ],
)
def test_what_cannot_pass_is_called_once(
    server: OpenAIServer,
    make: Make,
    status: int,
    code: str | None,
    kind: type[ChainError],
    ours: str,
) -> None:
    server.fail_when(None, status=status, code=code)
    with scope() as run:
        error = failure(make(retry=AT_ONCE))
    assert type(error) is kind
    assert (error.code, error.http_status, error.step) == (ours, status, make.__name__)
    assert explain(error).needs_operator is (kind is OperatorNeeded)
    assert len(sent(server, make)) == 1
    assert run.usage == Usage(requests=1)


@any_step
def test_a_refused_connection_is_made_again_and_is_no_timeout(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    with scope() as run:
        error = failure(make(retry=AT_ONCE))
    assert isinstance(error, RetryLater)
    assert error.code == "connection_error"
    assert run.usage == Usage(requests=3)


@any_step
def test_a_dropped_connection_is_made_again(server: OpenAIServer, make: Make) -> None:
    server.drop_when(None, n=1)
    assert make(retry=AT_ONCE).invoke("hello")
    server.drop_when(None)
    assert failure(make(retry=None)).code == "connection_error"


@any_step
def test_a_silence_is_a_timeout_and_is_called_again(server: OpenAIServer, make: Make) -> None:
    server.hang_when(None, n=1)
    assert make(retry=AT_ONCE, timeout=0.5).invoke("hello")
    server.hang_when(None)
    error = failure(make(retry=None, timeout=0.5))
    assert isinstance(error, RetryLater)
    assert error.code == "timeout"


@asking
@pytest.mark.parametrize("output_type", [None, Verdict])
@pytest.mark.parametrize(
    ("rule", "code"), [("refuse_when", "refusal"), ("filter_when", "content_filter")]
)
def test_an_answer_that_is_withheld_fails_the_item_and_has_been_paid_for(
    server: OpenAIServer, make: Make, output_type: Any, rule: str, code: str
) -> None:
    getattr(server, rule)(None)
    with scope() as run:
        error = failure(make(output_type=output_type, retry=AT_ONCE))
    assert (error.code, error.retryable) == (code, False)
    assert len(sent(server, make)) == 1
    assert run.usage is not None
    assert (run.usage.requests, run.usage.input_tokens) == (1, 1)


@asking
def test_a_structure_that_is_cut_off_is_asked_for_once_more_with_twice_the_limit(
    server: OpenAIServer, make: Make
) -> None:
    server.truncate_when(None, n=1)
    assert limited(make, 50).invoke("hello") == Verdict(summary="echo: hello", score=0)
    server.truncate_when(None)
    assert failure(limited(make, 50)).code == "length"
    limits = [
        request.body.get("max_tokens", request.body.get("max_output_tokens"))
        for request in sent(server, make)
    ]
    assert limits == [50, 100, 50, 100]


@asking
def test_without_a_limit_of_ours_what_is_cut_off_fails_at_once(
    server: OpenAIServer, make: Make
) -> None:
    server.truncate_when(None)
    error = failure(make(output_type=Verdict))
    assert error.code == "length"
    assert error.raw
    assert len(sent(server, make)) == 1


@asking
def test_an_answer_that_does_not_fit_is_asked_for_twice_more_and_kept(
    server: OpenAIServer, make: Make
) -> None:
    server.garbage_when(None, n=2)
    assert make(output_type=Verdict).invoke("hello").score == 0
    last = sent(server, make)[-1].body
    conversation = last["messages"] if make is Chat else last["input"]
    assert [one["role"] for one in conversation] == ["user", *["assistant", "user"] * 2]
    assert "does not fit Verdict" in conversation[-1]["content"]
    server.garbage_when(None)
    with scope() as run:
        error = failure(make(output_type=Verdict))
    assert (error.code, error.retryable) == ("invalid_output", False)
    assert error.raw == "This is not what the schema asked for."
    assert len(sent(server, make)) == 6
    assert run.usage is not None
    assert run.usage.requests == 3
    assert run.usage.output_tokens
