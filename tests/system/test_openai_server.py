"""The test server is what it says: each answer and each misbehaviour, through the real SDK."""

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt
import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, Field

from tests.support.openai_server import OpenAIServer
from tests.support.waiting import wait_until


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def client(server: OpenAIServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=server.base_url, api_key="test", max_retries=0, timeout=10
    ) as client:
        yield client


def ask(client: openai.OpenAI, text: str) -> ChatCompletion:
    return client.chat.completions.create(
        model="test-model", messages=[{"role": "user", "content": text}]
    )


def test_a_chat_echoes_the_last_user_and_counts_words(
    server: OpenAIServer, client: openai.OpenAI
) -> None:
    answer = ask(client, "two words")
    assert answer.choices[0].message.content == "echo: two words"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 3)
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.body["messages"][0]["content"] == "two words"
    assert request.headers["authorization"] == "Bearer test"
    assert request.status == 200
    assert request.finished is not None
    assert request.finished >= request.started


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Leaf(BaseModel):
    text: str
    size: int = Field(ge=3)
    child: "Leaf | None"


class Tree(BaseModel):
    title: str
    colour: Colour
    kind: Literal["oak", "elm"]
    weight: float | None
    leaves: list[Leaf]
    alive: bool
    code: str = Field(pattern=r"^[A-Z]{2}( [0-9]+)?\.$")


def test_a_schema_is_answered_with_an_object_that_fits_it(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.parse(
        model="test-model", messages=[{"role": "user", "content": "hi"}], response_format=Tree
    )
    tree = raw.parse().choices[0].message.parsed
    assert tree is not None
    assert (tree.title, tree.colour, tree.kind) == ("echo: hi", Colour.RED, "oak")
    assert (tree.weight, tree.leaves[0].size) == (0, 3)
    assert tree.code == "AA."
    assert raw.headers["x-request-id"] == "req_1"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, None, openai.BadRequestError),
        (401, "invalid_api_key", openai.AuthenticationError),
        (403, None, openai.PermissionDeniedError),
        (404, "model_not_found", openai.NotFoundError),
        (409, None, openai.ConflictError),
        (422, None, openai.UnprocessableEntityError),
        (429, "insufficient_quota", openai.RateLimitError),
        (503, None, openai.InternalServerError),
    ],
)
def test_a_failure_arrives_as_the_sdks_own_error(
    server: OpenAIServer,
    client: openai.OpenAI,
    status: int,
    code: str | None,
    error: type[openai.APIStatusError],
) -> None:
    server.fail_next(status, code=code, message="as told", retry_after=1.5)
    with pytest.raises(error, match="as told") as caught:
        ask(client, "hello")
    assert caught.value.status_code == status
    assert caught.value.code == code
    assert caught.value.response.headers["retry-after"] == "1.5"
    assert ask(client, "hello").choices[0].finish_reason == "stop"


def test_counted_failures_go_first_and_only_to_the_requests_they_match(
    server: OpenAIServer, client: openai.OpenAI
) -> None:
    server.fail_when("bad", status=400)
    server.fail_next(500, match="bad", n=2)
    ask(client, "good")
    for error in (openai.InternalServerError, openai.InternalServerError, openai.BadRequestError):
        with pytest.raises(error):
            ask(client, "bad apple")
    server.reset()
    assert server.requests == []
    ask(client, "bad apple")


def test_a_hanging_request_is_seen_to_be_abandoned_by_its_caller(
    server: OpenAIServer, client: openai.OpenAI
) -> None:
    server.hang_when("slow")
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.2), "slow one")
    wait_until(lambda: server.in_flight == 0, "the request is gone")
    assert server.requests[0].status is None


def test_a_dropped_socket_is_a_connection_error(
    server: OpenAIServer, client: openai.OpenAI
) -> None:
    server.drop_when("gone")
    with pytest.raises(openai.APIConnectionError):
        ask(client, "gone away")
    wait_until(lambda: server.in_flight == 0, "the request is gone")
    assert server.requests[0].status is None
    ask(client, "still here")


def test_contents_can_be_cut_refused_filtered_or_garbage(
    server: OpenAIServer, client: openai.OpenAI
) -> None:
    server.truncate_when("cut")
    server.refuse_when("no")
    server.filter_when("sift")
    server.garbage_when("junk")
    assert ask(client, "cut").choices[0].finish_reason == "length"
    assert ask(client, "no").choices[0].message.refusal
    assert ask(client, "sift").choices[0].finish_reason == "content_filter"
    with pytest.raises(ValueError, match="validation error"):
        client.chat.completions.parse(
            model="m", messages=[{"role": "user", "content": "junk"}], response_format=Tree
        )
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model="m", messages=[{"role": "user", "content": "cut"}], response_format=Tree
        )


def test_requests_in_flight_are_counted(server: OpenAIServer, client: openai.OpenAI) -> None:
    server.delay = lambda text: 0.3 if text == "slow" else 0.0
    threads = [threading.Thread(target=ask, args=(client, "slow")) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.in_flight == 3, "three requests wait")
    for thread in threads:
        thread.join()
    assert server.peak_in_flight == 3


def decoded(embedding: list[float] | str) -> npt.NDArray[np.float32]:
    # The SDK decodes base64 only where it chose that encoding itself.
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.array(embedding, dtype=np.float32)


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_embeddings_are_unit_vectors_that_lie_close_when_words_are_shared(
    server: OpenAIServer, client: openai.OpenAI, encoding: Literal["base64", "float"]
) -> None:
    server.shuffle_embeddings = True
    texts = ["red apple pie", "an apple and a pie", "steel bridge", "red apple pie"]
    answer = client.embeddings.create(model="e", input=texts, encoding_format=encoding)
    assert [entry.index for entry in answer.data] != [0, 1, 2, 3]
    ordered = sorted(answer.data, key=lambda entry: entry.index)
    vectors = np.array([decoded(entry.embedding) for entry in ordered])
    assert vectors.shape == (4, 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    nearness = vectors @ vectors[0]
    assert nearness[0] > 0.999
    assert nearness[3] > 0.999
    assert nearness[1] > nearness[2] + 0.2


def test_the_sdks_default_encoding_and_other_dimensions_work(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="e", input="one text", dimensions=8)
    assert len(answer.data[0].embedding) == 8


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["x"] * 2_049, "array too long"),
        (["fine", ""], "empty string"),
        ([], "empty array"),
        (["word " * 8_193], "8192 tokens"),
        (["word " * 8_000] * 38, "300000 tokens per request"),
    ],
)
def test_embeddings_beyond_the_apis_limits_are_refused(
    client: openai.OpenAI, inputs: list[str], message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        client.embeddings.create(model="e", input=inputs)


def test_only_the_right_key_is_let_in_when_one_is_set() -> None:
    with (
        OpenAIServer(api_key="right") as server,
        openai.OpenAI(base_url=server.base_url, api_key="wrong", max_retries=0) as client,
    ):
        with pytest.raises(openai.AuthenticationError):
            ask(client, "hello")
        assert ask(client.with_options(api_key="right"), "hello").usage is not None


def test_it_runs_as_a_program_and_stops_when_terminated() -> None:
    command = [sys.executable, "-m", "tests.support.openai_server", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        base_url = program.stdout.readline().strip()
        with openai.OpenAI(base_url=base_url, api_key="test", max_retries=0) as client:
            assert "test-model" in [model.id for model in client.models.list()]
        program.terminate()
        assert program.wait(timeout=10) == 0


def test_files_and_batches_are_as_the_sdk_knows_them(
    server: OpenAIServer, client: openai.OpenAI
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    lines = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n in range(3)
    ]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    server.fail_next(400, match="hi")
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    assert [one.id for one in client.files.list(purpose="batch", limit=1)] == [file.id]
    made = [
        client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"n": str(n)},
        )
        for n in range(3)
    ]
    assert [one.metadata for one in client.batches.list(limit=2)] == [
        {"n": "2"},
        {"n": "1"},
        {"n": "0"},
    ]
    steps = [client.batches.retrieve(made[0].id) for _ in range(2)]
    assert [step.status for step in steps] == ["in_progress", "completed"]
    assert steps[1].request_counts is not None
    assert (steps[1].request_counts.completed, steps[1].request_counts.failed) == (2, 1)
    assert steps[1].output_file_id
    assert steps[1].error_file_id
    answers = client.files.content(steps[1].output_file_id).text.splitlines()
    assert [json.loads(line)["response"]["status_code"] for line in answers] == [200, 200]
    assert client.batches.cancel(made[1].id).status == "cancelling"
    assert client.batches.retrieve(made[1].id).status == "cancelled"
    assert server.batches.executed == {"0": 1, "1": 1, "2": 1}
