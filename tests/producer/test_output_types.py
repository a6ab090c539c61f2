"""Answers of chats by their kind: recorded, kept between attempts and cached; or refused."""

import json
from typing import Any

import pytest
from aiohttp import web

from batchord.chains import Chat, Responses, get_chain
from tests.chains_for_tests.typed import REFUSED, ROWS, shown
from tests.conftest import Deploy
from tests.support.harness import Deployment, provider_env
from tests.support.openai_answers import JsonObject, last_user_text
from tests.support.openai_rules import Rule
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)


class Verbatim(OpenAIServer):
    """Answers with what it was asked."""

    def _chat(self, body: JsonObject, rule: Rule | None) -> web.Response:
        answer = json.loads(super()._chat(body, rule).text or "")
        answer["choices"][0]["message"]["content"] = last_user_text(body)
        return web.json_response(answer)


def said(name: str) -> str:
    """The text that the model answers with."""
    kind, answer, _ = ROWS[name]
    whole = Chat("test-model", output_type=kind)._structure
    assert whole is not None
    return json.dumps({"value": answer} if whole._wrapped else answer)


@pytest.fixture(scope="module")
def server() -> Any:
    with Verbatim() as started:
        yield started


@pytest.fixture(scope="module")
def worker(deploy_for_module: Deploy, server: Verbatim) -> Deployment:
    deployment = deploy_for_module(alike_limit=0)
    env = {"BATCHORD_CHAINS": "tests.chains_for_tests.typed", **provider_env(server)}
    deployment.start_worker(env=env)
    return deployment


@pytest.fixture(autouse=True)
def _asks_the_server(server: Verbatim, monkeypatch: pytest.MonkeyPatch) -> None:
    server.reset()
    for name, value in provider_env(server).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", ROWS)
def test_a_typed_answer_is_recorded_as_json_and_cached(
    worker: Deployment, server: Verbatim, name: str
) -> None:
    typed = get_chain(f"typed-{name}").chain
    value = typed.invoke(said(name))
    assert json.loads(json.dumps(typed.plain(value))) == ROWS[name].recorded
    submit = worker.client.submit
    first = submit(f"typed-{name}", [said(name)], cache=True)
    assert first.outputs() == [ROWS[name].recorded]
    second = submit(f"typed-{name}", [said(name)], cache=True)
    assert second.outputs() == [ROWS[name].recorded]
    assert [item.cached for item in second.results()] == [True]
    assert len(server.requests) == 2, "in process, and for the first batch"


@pytest.mark.parametrize("name", ROWS)
def test_the_next_attempt_has_the_same_typed_answer_and_pays_for_none(
    worker: Deployment, server: Verbatim, name: str
) -> None:
    batch = worker.client.submit(f"shown-{name}", [said(name)])
    value = get_chain(f"typed-{name}").chain.invoke(said(name))
    assert batch.outputs() == [shown(value)]
    assert [item.attempts for item in batch.results()] == [2]
    assert len(server.requests) == 2, "in process, and in the first attempt"


def test_typed_branches_are_recorded_too(worker: Deployment) -> None:
    batch = worker.client.submit("typed-branches", [said("date")])
    assert batch.outputs() == [{"left": "2026-11-28", "right": "2026-11-28"}]


@pytest.mark.parametrize("step", [Chat, Responses])
@pytest.mark.parametrize("name", REFUSED)
def test_what_could_not_be_recorded_is_refused_before_it_is_asked_for(name: str, step: Any) -> None:
    kind, cure = REFUSED[name]
    with pytest.raises(TypeError, match=cure):
        step("test-model", output_type=kind)
