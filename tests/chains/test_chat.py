"""A chat model as a step, over the real SDK and real HTTP."""

import asyncio
import dataclasses
import time
import traceback
from typing import Any

import pydantic
import pytest

from batchord.chains import (
    ChainError,
    Chat,
    InvalidInput,
    OperatorNeeded,
    Prompt,
    RetryLater,
    RetryPolicy,
    explain,
)
from batchord.chains.runtime.item_context import scope
from tests.chains.conftest import KEY, until
from tests.support.openai_server import OpenAIServer

AT_ONCE = RetryPolicy(initial=0.0)


class Verdict(pydantic.BaseModel):
    summary: str
    score: int


def failure(chain: Any, value: Any = "hello") -> ChainError:
    with pytest.raises(ChainError) as raised:
        chain.invoke(value)
    return raised.value


def test_text_in_text_out(server: OpenAIServer) -> None:
    assert Chat().invoke("hello") == "echo: hello"
    assert server.requests[0].body["model"] == "test-model"


def test_a_prompt_yields_what_a_chat_takes(server: OpenAIServer) -> None:
    messages = Prompt([("system", "Be brief."), ("user", "{q}")]) | Chat("other-model")
    assert messages.batch([{"q": "a"}, {"q": "b"}]) == ["echo: a", "echo: b"]
    assert (Prompt("Why {q}?") | Chat()).invoke("so") == "echo: Why so?"
    assert server.requests[0].body["model"] == "other-model"
    assert server.requests[0].body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_options_go_into_the_request_and_those_of_the_call_win(server: OpenAIServer) -> None:
    chat = Chat(system="Be kind.", temperature=0.0, max_tokens=9, seed=1, timeout=5.0)
    chat.invoke("hello", seed=2)
    body = server.requests[0].body
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.0, 9, 2)
    assert body["messages"][0] == {"role": "system", "content": "Be kind."}
    assert "timeout" not in body


def test_a_model_class_gives_validated_instances(server: OpenAIServer) -> None:
    verdict = Chat(output_type=Verdict).invoke("hello")
    assert verdict == Verdict(summary="echo: hello", score=0)
    assert server.requests[0].body["response_format"]["json_schema"]["strict"] is True


def test_usage_is_reported(server: OpenAIServer) -> None:
    with scope() as run:
        Chat().batch(["one two", "three"])
    assert run.usage is not None
    assert run.usage.requests == 2
    assert run.usage.input_tokens == 3
    assert run.usage.output_tokens == 5


def test_an_answer_that_does_not_fit_is_asked_for_again_with_what_is_wrong(
    server: OpenAIServer,
) -> None:
    server.garbage_when(None, n=2)
    with scope() as run:
        verdict = Chat(output_type=Verdict).invoke("hello")
    assert verdict.score == 0
    first, second, third = (request.body["messages"] for request in server.requests)
    assert [message["role"] for message in third] == ["user", *["assistant", "user"] * 2]
    assert third[: len(second)] == second
    assert second[: len(first)] == first
    assert "does not fit Verdict" in second[-1]["content"]
    assert run.usage is not None
    assert run.usage.requests == 3


@pytest.mark.parametrize("reasks", [0, 1, 2])
def test_an_answer_that_never_fits_is_kept_in_the_error(server: OpenAIServer, reasks: int) -> None:
    server.garbage_when(None)
    with scope() as run:
        error = failure(Chat(output_type=Verdict, reasks=reasks))
    assert (error.code, error.retryable, error.step) == ("invalid_output", False, "Chat")
    assert "does not fit Verdict" in str(error)
    assert error.raw
    assert explain(error).raw == error.raw
    assert len(server.requests) == 1 + reasks
    assert run.usage is not None
    assert run.usage.requests == 1 + reasks
    assert run.usage.output_tokens


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_structure_that_is_cut_off_is_asked_for_once_more_with_twice_the_limit(
    server: OpenAIServer, limit: str
) -> None:
    server.truncate_when(None, n=1)
    options: dict[str, Any] = {limit: 50}
    assert Chat(output_type=Verdict, **options).invoke("hello").score == 0
    assert [request.body[limit] for request in server.requests] == [50, 100]
    server.truncate_when(None)
    assert failure(Chat(output_type=Verdict, **options)).code == "length"
    assert [request.body[limit] for request in server.requests[2:]] == [50, 100]


class Doubt(pydantic.BaseModel):
    doubt: str


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("output_type", "kind"),
    [(list[Verdict], list), (Doubt | Verdict, Doubt), (Point, Point), (int, int)],
)
def test_lists_unions_and_others_are_read_as_their_type(
    server: OpenAIServer, output_type: Any, kind: type
) -> None:
    answer = Chat(output_type=output_type).invoke("hello")
    assert isinstance(answer, kind)
    schema = server.requests[0].body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["type"] == "object"


def test_plain_text_that_is_cut_off_is_returned_as_far_as_it_goes(server: OpenAIServer) -> None:
    server.truncate_when(None)
    assert Chat().invoke("hello") == "echo"[:4] + ":"


def test_the_wait_that_the_provider_asks_for_is_kept(server: OpenAIServer) -> None:
    server.fail_next(429, retry_after=0.2)
    started = time.monotonic()
    Chat(retry=AT_ONCE).invoke("hello")
    assert time.monotonic() - started >= 0.2


def test_a_wait_of_minutes_is_handed_to_the_caller(server: OpenAIServer) -> None:
    server.fail_next(429, retry_after=300)
    error = failure(Chat())
    assert isinstance(error, RetryLater)
    assert error.after == 300.0
    assert explain(error).after == 300.0
    assert len(server.requests) == 1


def test_without_a_policy_nothing_is_called_again(server: OpenAIServer) -> None:
    server.fail_next(503)
    assert failure(Chat(retry=None)).code == "server_error"


def test_an_item_that_fails_for_good_leaves_its_neighbours_alone(server: OpenAIServer) -> None:
    server.fail_when("bad", status=503)
    results = Chat(retry=AT_ONCE).batch(["a", "bad", "b"], return_exceptions=True)
    assert [results[0], results[2]] == ["echo: a", "echo: b"]
    assert isinstance(results[1], RetryLater)


def test_an_address_that_answers_with_pages_is_named(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url.removesuffix("/v1") + "/other")
    error = failure(Chat())
    assert isinstance(error, OperatorNeeded)
    assert "OPENAI_BASE_URL" in str(error)


@pytest.mark.parametrize(
    ("variable", "code"),
    [("OPENAI_API_KEY", "authentication_error"), ("OPENAI_MODEL", "model_not_found")],
)
def test_what_is_not_configured_needs_an_operator_at_the_first_call(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, variable: str, code: str
) -> None:
    monkeypatch.delenv(variable)
    chat = Chat()
    with scope() as run:
        error = failure(chat)
    assert isinstance(error, OperatorNeeded)
    assert error.code == code
    assert f"set {variable}" in str(error)
    assert run.usage is None


def test_a_wrong_key_needs_an_operator_and_is_not_shown(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-wrong-key")
    assert isinstance(failure(Chat()), OperatorNeeded)


def test_a_key_that_the_provider_quotes_is_masked(server: OpenAIServer) -> None:
    server.fail_next(401, message=f"Incorrect API key provided: {KEY}")
    error = failure(Chat())
    assert str(error).startswith("Incorrect API key provided: ***")
    assert KEY not in explain(error).message
    assert KEY not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("value", [3, None, [], ["text"], [{"content": "no role"}], {"q": "x"}])
def test_what_no_chat_takes_is_refused_before_anything_is_sent(
    server: OpenAIServer, value: Any
) -> None:
    error = failure(Chat(), value)
    assert isinstance(error, InvalidInput)
    assert server.requests == []


@pytest.mark.parametrize("output_type", [dict, "Verdict", Verdict(summary="", score=0)])
def test_an_output_type_is_a_pydantic_model(output_type: Any) -> None:
    with pytest.raises(TypeError, match="must be a type with fields of its own"):
        Chat(output_type=output_type)


def test_the_first_error_cancels_the_calls_that_are_out(server: OpenAIServer) -> None:
    server.hang_when("hang")
    server.fail_next(400, match="bad")
    server.delay = 0.1
    with pytest.raises(ChainError, match="told to fail"):
        Chat().batch(["hang 1", "hang 2", "bad"])
    asyncio.run(until(lambda: server.in_flight == 0))


def test_max_concurrency_bounds_the_requests(server: OpenAIServer) -> None:
    server.delay = 0.01
    chain = Prompt("{x}") | {"a": Chat(), "b": Chat(), "c": Chat()}
    chain.batch([str(n) for n in range(6)], {"max_concurrency": 2})
    assert server.peak_in_flight == 2
    assert len(server.requests) == 18


def test_every_event_loop_has_a_client_that_it_closes(server: OpenAIServer) -> None:
    async def main() -> str:
        return await Chat().ainvoke("hello")

    # A client left open would warn, and warnings are errors here.
    assert asyncio.run(main()) == asyncio.run(main()) == Chat().invoke("hello")
