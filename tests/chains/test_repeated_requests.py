"""Requests that go out without the SDK are the SDK's own in all but their body."""

import datetime
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import openai
import pytest

from batchord.chains import ChainError, Chat, Responses
from batchord.chains.steps.raw_request import Request as RawRequest
from tests.chains.conftest import KEY
from tests.support.openai_server import OpenAIServer, Request

Step = Callable[[], Any]
BUILT = "Building HTTP request"

AT = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)

#: What of a request is its own.
OF_ONE = ("content-length",)


def chat(**options: Any) -> Step:
    return lambda: Chat(retry=None, **options)


def responses(**options: Any) -> Step:
    return lambda: Responses(retry=None, **options)


def raw(text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"url": "/v1/chat/completions", "body": {"model": "m", "messages": messages}}


def text(value: str) -> str:
    return value


STEPS: dict[str, tuple[Step, Callable[[str], Any]]] = {
    "chat": (chat(), text),
    "options": (chat(temperature=0.5, max_tokens=7, seed=3, stop=["x", "y"]), text),
    "system": (chat(system="Be brief."), text),
    "timeout": (chat(timeout=7.5), text),
    "headers": (chat(extra_headers={"X-Mine": "1", "Authorization": f"Bearer {KEY}"}), text),
    "query": (chat(extra_query={"api-version": "2", "of": "a b"}), text),
    "body": (chat(extra_body={"top_k": 5, "nested": {"a": [1, None, "ü"]}}), text),
    "form": (chat(output_type=list[int], structured_output="json_object", reasks=0), text),
    "responses": (responses(max_output_tokens=9), text),
    "instructions": (responses(system="Be brief.", extra_headers={"X-Mine": "1"}), text),
    "raw": (lambda: RawRequest(retry=None), raw),
    "raw timeout": (lambda: RawRequest(retry=None, timeout=9.0), raw),
}


@pytest.fixture
def built(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """Return how many requests the SDK has built."""
    caplog.set_level(logging.DEBUG, logger="openai._base_client")
    return lambda: sum(BUILT in record.message for record in caplog.records)


def sent(server: OpenAIServer) -> list[Request]:
    return sorted(server.requests, key=lambda request: request.started)


def headers(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name not in OF_ONE}


def call(step: Any, value: Any) -> None:
    with suppress(ChainError):  # the form of an answer is judged elsewhere
        step.invoke(value)


@pytest.mark.parametrize("name", STEPS)
def test_all_requests_but_the_first_are_sent_as_the_sdk_has_sent_that(
    server: OpenAIServer, name: str, built: Callable[[], int]
) -> None:
    make, input_of = STEPS[name]
    step = make()
    # The loop's client may know this kind from another test: the first may be ours already.
    for word in ("one", "two", "one", "drei ü 😀"):
        call(step, input_of(word))
    assert built() <= 1
    first, second, again, odd = sent(server)
    assert again.body == first.body
    assert second.body != first.body
    assert "drei ü 😀" in str(odd.body)
    assert headers(first) == headers(second) == headers(again)


@pytest.mark.parametrize("name", STEPS)
def test_a_request_that_is_repeated_is_what_the_sdk_would_have_sent(
    server: OpenAIServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, input_of = STEPS[name]
    step = make()
    for word in ("one", "two"):
        call(step, input_of(word))
    monkeypatch.setattr("batchord.chains.openai.repeated_request._encoded", lambda _: None)
    call(step, input_of("two"))
    _, ours, the_sdks = sent(server)
    assert ours.path == the_sdks.path
    assert ours.body == the_sdks.body
    assert headers(ours) == headers(the_sdks)


@pytest.mark.parametrize(
    ("option", "arrives"),
    [
        ({"extra_body": {"at": datetime.date(2026, 1, 2)}}, None),
        ({"extra_body": {"at": AT}}, AT.isoformat()),
        ({"extra_body": {"at": float("nan")}}, None),
    ],
)
def test_what_the_sdk_alone_can_encode_or_refuse_stays_the_sdks(
    server: OpenAIServer, option: dict[str, Any], arrives: str | None, built: Callable[[], int]
) -> None:
    step = Chat(retry=None, **option)
    for word in ("one", "two"):
        if arrives is None:
            with pytest.raises((TypeError, ValueError)):
                step.invoke(word)
        else:
            step.invoke(word)
    assert built() == 2
    assert [request.body["at"] for request in server.requests] == ([arrives] * 2 if arrives else [])


def test_an_option_that_the_sdk_does_not_know_is_refused_each_time(server: OpenAIServer) -> None:
    step = Chat(retry=None)
    step.invoke("one")
    for word in ("two", "three"):
        with pytest.raises(TypeError, match="hotness"):
            step.invoke(word, hotness=0.5)
    assert len(server.requests) == 1


def test_options_of_a_call_do_not_stay_for_the_next(server: OpenAIServer) -> None:
    step = Chat(retry=None)
    options: dict[str, Any]
    for options in ({}, {"extra_headers": {"x-of": "two"}}, {}, {"extra_headers": {"x-of": "4"}}):
        step.invoke("hello", None, **options)
    assert [request.headers.get("x-of") for request in sent(server)] == [None, "two", None, "4"]


def test_another_key_or_address_is_used_at_once(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Chat(retry=None)
    step.invoke("one")
    step.invoke("two")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    with pytest.raises(ChainError) as refused:
        step.invoke("three")
    assert refused.value.code == "authentication_error"
    assert sent(server)[-1].headers["authorization"] == "Bearer another"


FAILURES: dict[str, Callable[[OpenAIServer], None]] = {
    **{
        str(status): lambda server, status=status: server.fail_next(status, message="no luck")  # type: ignore[misc]
        for status in (400, 401, 403, 404, 408, 409, 422, 429, 500, 503, 529)
    },
    "retry-after": lambda server: server.fail_next(429, retry_after=7),
    "quota": lambda server: server.fail_next(429, code="insufficient_quota"),
    "dropped": lambda server: server.drop_when(None, n=1),
    "silent": lambda server: server.hang_when(None, n=1),
    "filtered": lambda server: server.filter_when(None, n=1),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_the_same_error_with_and_without_the_sdk(
    server: OpenAIServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Chat(retry=None, timeout=0.5)

    def failure() -> tuple[Any, ...]:
        FAILURES[name](server)
        with pytest.raises(ChainError) as raised:
            step.invoke("hello")
        error = raised.value
        after = getattr(error, "after", None)
        return type(error), str(error), error.code, error.http_status, error.raw, after

    step.invoke("hello")
    ours = failure()
    monkeypatch.setattr("batchord.chains.openai.repeated_request._encoded", lambda _: None)
    assert ours == failure()


@pytest.mark.parametrize("where", ["create", "post"])
def test_a_tool_that_traces_calls_of_the_sdk_sees_each(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    seen = []
    owner: Any = openai.AsyncOpenAI
    if where == "create":
        owner = openai.resources.chat.AsyncCompletions
    before = getattr(owner, where)

    async def traced(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(options)
        return await before(self, *args, **options)

    monkeypatch.setattr(owner, where, traced)
    # A client that was made before has taken the method as it was.
    monkeypatch.setenv("OPENAI_ORG_ID", f"traced-{where}")
    step = Chat(retry=None)
    for word in ("one", "two", "three"):
        step.invoke(word)
    assert len(seen) == 3
