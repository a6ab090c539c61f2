"""`Request`: what a line of OpenAI's Batch API asks for, posted as it is through the real SDK."""

import json
from typing import Any

import pytest

from batchord.chains import InvalidInput, OperatorNeeded, RetryLater, RetryPolicy, explain
from batchord.chains.errors import ChainError
from batchord.chains.runtime.item_context import scope
from batchord.chains.steps.raw_request import Request
from tests.support.openai_server import OpenAIServer

CHAT = "/v1/chat/completions"

#: By url: a body with fields that we do not know, and the tokens in and out of its answer.
BODIES: dict[str, tuple[dict[str, Any], int, int | None]] = {
    CHAT: ({"messages": [{"role": "user", "content": "one two"}], "top_k": 5}, 2, 3),
    "/v1/embeddings": (
        {"input": ["a b", "c"], "encoding_format": "base64", "dimensions": 4},
        3,
        None,
    ),
    "/v1/responses": ({"input": "one two three", "instructions": "x", "x": {"y": [None]}}, 4, 8),
    "/v1/completions": ({"prompt": "one two", "logit_bias": {"50256": -100}}, 2, 2),
    "/v1/score": ({"text_1": "one", "text_2": ["two", "three"], "use_activation": True}, 3, None),
}


def chat(text: str, **more: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return {"url": CHAT, "body": body}


@pytest.mark.parametrize("url", BODIES)
def test_a_body_goes_to_its_url_untouched_and_the_answer_comes_back_whole(
    server: OpenAIServer, url: str
) -> None:
    fields, tokens_in, tokens_out = BODIES[url]
    body = {"model": "any", **fields}

    with scope() as run:
        answer = Request().invoke({"url": url, "body": body})

    [request] = server.requests
    assert (request.path, request.body) == (url, body)
    assert answer["status_code"] == 200
    assert answer["request_id"] == request.id
    assert answer["body"]["model"] == "any"
    assert run.usage is not None
    assert (run.usage.requests, run.usage.input_tokens) == (1, tokens_in)
    assert run.usage.output_tokens == tokens_out
    if url == "/v1/responses":
        assert (run.usage.cached_input_tokens, run.usage.reasoning_tokens) == (0, 4)


def test_what_may_pass_is_posted_again_and_a_cool_down_is_no_attempt(server: OpenAIServer) -> None:
    server.fail_next(500)
    server.fail_next(429, retry_after=0.05, n=3)

    step = Request(retry=RetryPolicy(max_attempts=2, initial=0.0))
    answer = step.invoke(chat("hello"))

    assert answer["status_code"] == 200
    assert len(server.requests) == 5


def test_a_refused_request_fails_with_the_answer_that_it_got(server: OpenAIServer) -> None:
    server.fail_when("bad", status=400, message="no such thing", code="nope")

    with pytest.raises(ChainError) as caught:
        Request().invoke(chat("bad"))

    assert caught.value.code == "bad_request"
    answer = json.loads(explain(caught.value).raw or "")
    assert answer["status_code"] == 400
    assert answer["request_id"] == server.requests[0].id
    assert answer["body"]["error"]["code"] == "nope"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [(401, OperatorNeeded, "authentication_error"), (503, RetryLater, "server_error")],
)
def test_errors_are_those_of_chat(
    server: OpenAIServer, status: int, kind: type[ChainError], code: str
) -> None:
    server.fail_when(None, status=status)
    with pytest.raises(kind) as caught:
        Request(retry=None).invoke(chat("hello"))
    assert caught.value.code == code


def test_a_connection_that_breaks_leaves_no_answer(server: OpenAIServer) -> None:
    server.drop_when(None)
    with pytest.raises(RetryLater) as caught:
        Request(retry=None).invoke(chat("hello"))
    assert caught.value.raw is None


@pytest.mark.parametrize(
    "given",
    [
        "text",
        {"url": CHAT},
        {"url": "/v1/files", "body": {}},
        {"url": CHAT, "body": "text"},
        {**chat("x"), "method": "GET"},
        chat("x", stream=True),
    ],
)
def test_what_is_no_request_is_refused_before_it_is_sent(server: OpenAIServer, given: Any) -> None:
    with pytest.raises(InvalidInput):
        Request().invoke(given)
    assert server.requests == []
