"""The Responses API as a step: what is not as with a chat (test_error_table has the rest)."""

import dataclasses
from typing import Any

import pydantic
import pytest

from batchord.chains import ChainError, Prompt, RateLimit, Responses, RetryLater, RetryPolicy, Usage
from batchord.chains.runtime.item_context import scope
from tests.support.openai_server import OpenAIServer

AT_ONCE = RetryPolicy(initial=0.0)


class Verdict(pydantic.BaseModel):
    summary: str
    score: int


class Doubt(pydantic.BaseModel):
    doubt: str


@dataclasses.dataclass
class Point:
    x: int


def failure(step: Any, value: Any = "hello") -> ChainError:
    with pytest.raises(ChainError) as raised:
        step.invoke(value)
    return raised.value


def test_text_or_messages_in_and_text_out(server: OpenAIServer) -> None:
    assert Responses().invoke("hello") == "echo: hello"
    chain = Prompt([("developer", "Be brief."), ("user", "{q}")]) | Responses("other-model")
    assert chain.batch([{"q": "a"}, {"q": "b"}]) == ["echo: a", "echo: b"]
    first, second, _ = server.requests
    assert first.path == "/v1/responses"
    assert first.body == {"model": "test-model", "input": [{"role": "user", "content": "hello"}]}
    assert second.body["model"] == "other-model"
    assert second.body["input"][0] == {"role": "developer", "content": "Be brief."}


def test_options_go_into_the_request_and_those_of_the_call_win(server: OpenAIServer) -> None:
    step = Responses(
        system="Be kind.", temperature=0.0, max_output_tokens=9, store=False, timeout=5.0
    )
    step.invoke("hello", store=True)
    body = server.requests[0].body
    assert (body["temperature"], body["max_output_tokens"], body["store"]) == (0.0, 9, True)
    assert body["instructions"] == "Be kind."
    assert "timeout" not in body


@pytest.mark.parametrize(
    ("output_type", "kind"),
    [
        (Verdict, Verdict),
        (list[Verdict], list),
        (Doubt | Verdict, Doubt),
        (Point, Point),
        (int, int),
    ],
)
def test_a_structure_is_asked_for_as_a_strict_schema_beside_other_text_options(
    server: OpenAIServer, output_type: Any, kind: type
) -> None:
    step = Responses(output_type=output_type, text={"verbosity": "low"})
    assert isinstance(step.invoke("hello"), kind)
    text = server.requests[0].body["text"]
    assert text["verbosity"] == "low"
    assert (text["format"]["type"], text["format"]["strict"]) == ("json_schema", True)
    assert text["format"]["schema"]["type"] == "object"
    assert text["format"]["schema"]["additionalProperties"] is False


def test_usage_is_reported_with_what_was_cached_and_what_was_thought(
    server: OpenAIServer,
) -> None:
    server.cached_tokens = 1
    with scope() as run:
        Responses().batch(["one two", "three"])
    assert run.usage == Usage(
        requests=2,
        input_tokens=3,
        cached_input_tokens=2,
        output_tokens=10,
        reasoning_tokens=5,
        unpriced_requests=2,
    )


def test_plain_text_that_is_cut_off_is_returned_as_far_as_it_goes(server: OpenAIServer) -> None:
    server.truncate_when(None)
    assert Responses().invoke("hello") == "echo:"


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        ("server_error", "server_error"),
        ("rate_limit_exceeded", "rate_limited"),
        ("vector_store_timeout", "timeout"),
    ],
)
def test_an_answer_that_failed_in_a_way_that_may_pass_is_asked_for_again(
    server: OpenAIServer, code: str, ours: str
) -> None:
    server.break_when(None, code=code, n=2)
    with scope() as run:
        assert Responses(retry=AT_ONCE).invoke("hello") == "echo: hello"
    assert run.usage is not None
    assert run.usage.requests == 3
    server.break_when(None, code=code)
    error = failure(Responses(retry=AT_ONCE))
    assert isinstance(error, RetryLater)
    assert error.code == ours


def test_any_other_answer_that_failed_fails_the_item_now(server: OpenAIServer) -> None:
    server.break_when(None, code="invalid_prompt")
    error = failure(Responses(retry=AT_ONCE))
    assert (error.code, error.retryable, str(error)) == ("bad_request", False, "told to fail")
    assert len(server.requests) == 1


def test_a_rate_limit_is_kept(server: OpenAIServer) -> None:
    server.delay = 0.02
    limited = Responses(limit=RateLimit("responses", concurrency=2))
    limited.batch([str(n) for n in range(8)])
    assert server.peak_in_flight == 2


@pytest.mark.parametrize("option", ["stream", "background"])
def test_what_gives_no_whole_answer_is_refused_when_the_chain_is_made(option: str) -> None:
    options: dict[str, Any] = {option: True}
    with pytest.raises(ValueError, match="leave it out"):
        Responses(**options)
