"""The lines of batch files: what a provider may write into them, and what a chain makes of it."""

import asyncio
import json
from typing import Any

import pytest

from batchord.chains import ChainError, Chat, Embed, InvalidInput, Prompt
from batchord.chains.errors import step_of
from batchord.chains.provider_batch.file_format import Answer, answer_of, body_of, request_line
from batchord.chains.steps.offline_call import offline


def line(**fields: Any) -> bytes:
    return json.dumps({"id": "batch_req_1", "custom_id": "a", **fields}).encode()


def test_a_request_is_one_line_whatever_is_in_it() -> None:
    written = request_line('quoted " name\n', "/v1/embeddings", json.dumps({"input": ["a\nb"]}))
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")
    assert json.loads(written) == {
        "custom_id": 'quoted " name\n',
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"input": ["a\nb"]},
    }


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"no JSON",
        b"[" * 100_000,
        b'{"custom_id": 3}',
        b'{"custom_id": "a',
        b"\xff",
    ],
)
def test_what_is_no_answer_is_none(text: bytes) -> None:
    assert answer_of(text) is None


@pytest.mark.parametrize(
    ("fields", "code", "retryable"),
    [
        (
            {"response": {"status_code": 400, "body": {"error": {"message": "no"}}}},
            "bad_request",
            False,
        ),
        ({"response": {"status_code": 429, "body": {}}}, "rate_limited", True),
        ({"response": {"status_code": 500, "body": "broken"}}, "server_error", True),
        ({"response": {"status_code": 503, "body": None}}, "server_error", True),
        ({"error": {"code": "batch_expired", "message": "late"}}, "batch_expired", True),
        ({"error": {"code": "other"}}, "other", False),
        ({"error": None}, "no_answer", True),
        ({}, "no_answer", True),
    ],
)
def test_what_went_wrong_is_typed(fields: dict[str, Any], code: str, retryable: bool) -> None:
    answer = answer_of(line(**fields))
    assert answer is not None
    with pytest.raises(ChainError) as raised:
        body_of(answer)
    assert (raised.value.code, raised.value.retryable) == (code, retryable)


@pytest.mark.parametrize("depth", [300, 5_000])
def test_an_answer_that_is_nested_too_deeply_is_kept_as_a_text(depth: int) -> None:
    body = '{"a":' * depth + "1" + "}" * depth
    text = f'{{"custom_id": "a", "response": {{"status_code": 200, "body": {body}}}}}'
    answer = answer_of(text.encode())
    assert answer is not None
    assert answer.custom_id == "a"
    with pytest.raises(ChainError) as raised:
        Chat("m").read(body_of(answer))
    assert raised.value.code == "invalid_output"
    assert '{"a":' in (raised.value.raw or "")


def test_lone_surrogates_of_an_answer_are_replaced() -> None:
    body = {"choices": [{"message": {"content": "a\ud800b\ud83d\ude00"}}]}
    answer = answer_of(line(response={"status_code": 200, "body": body}))
    assert answer is not None
    assert Chat("m").read(body_of(answer)) == "a\ufffdb\U0001f600"


@pytest.mark.parametrize("body", [None, [], "text", 3, {}, {"choices": []}, {"data": [{}]}])
@pytest.mark.parametrize("step", [Chat("m"), Embed("m")])
def test_a_body_that_is_no_answer_fails_as_invalid_output(step: Any, body: Any) -> None:
    answer = Answer.model_validate(
        {"custom_id": "a", "response": {"status_code": 200, "body": body}}
    )
    with pytest.raises(ChainError) as raised:
        step.read(body_of(answer))
    assert raised.value.code == "invalid_output"


def test_errors_before_and_after_the_call_name_their_step() -> None:
    chain = Prompt("{a} {b}") | Chat("m") | str.upper | int
    plan = offline(chain)
    with pytest.raises(InvalidInput) as raised:
        asyncio.run(plan.request("one"))
    assert raised.value.step == "Prompt"
    body = {"choices": [{"message": {"content": "text"}, "finish_reason": "stop"}]}
    with pytest.raises(ValueError, match="invalid literal") as late:
        asyncio.run(plan.output(body))
    assert step_of(late.value) == "int"


def test_a_list_of_texts_is_no_single_request() -> None:
    with pytest.raises(InvalidInput, match="one text an item"):
        Embed("m").request(["a", "b"])
