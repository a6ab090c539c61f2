"""Routes: a file may mix models, and each goes where the table says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchord.chains.openai import routes
from batchord.chains.openai.routes import BadRoutes
from tests.conftest import Deploy
from tests.support.api_server import ApiServer, ended, lines_of, make, request
from tests.support.cli_harness import Shell
from tests.support.harness import Deployment, provider_env
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

SECRET = "a-secret-of-the-second-server"


@pytest.fixture(scope="module")
def second() -> Iterator[OpenAIServer]:
    """A provider that lets in one key alone."""
    with OpenAIServer(api_key=SECRET) as server:
        yield server


@pytest.fixture(scope="module")
def routed(
    deploy_for_module: Deploy, provider_for_module: OpenAIServer, second: OpenAIServer
) -> Deployment:
    """A worker with a table of routes."""
    deployment = deploy_for_module(alike_limit=0)
    table = deployment.folder / "routes.toml"
    table.write_text(
        f'[routes."llama-*"]\nbase_url = "{second.base_url}"\nkey_env = "SECOND_KEY"\n'
        'model = "meta/llama"\nconcurrency = 2\n'
        f'[routes."llama-small"]\nbase_url = "{provider_for_module.base_url}"\n'
        f'[routes.m]\nbase_url = "{provider_for_module.base_url}"\nkey_env = "OPENAI_API_KEY"\n'
        f'[routes.keyless]\nbase_url = "{second.base_url}"\n'
    )
    env = {"BATCHORD_CHAINS": "", "BATCHORD_ROUTES": str(table), "SECOND_KEY": SECRET}
    env |= {"OPENAI_ORG_ID": "org-of-the-first"}
    deployment.start_worker(env={**provider_env(provider_for_module), **env})
    return deployment


def _line(number: int, model: str | None) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"text {number}"}]
    body = {"messages": messages} if model is None else {"model": model, "messages": messages}
    return request(number, body=body)


def test_each_model_goes_where_its_route_leads(
    routed: Deployment, provider: OpenAIServer, second: OpenAIServer
) -> None:
    second.reset()
    second.delay = 0.05
    api = ApiServer(routed)
    models = ["m", "llama-large", "llama-small", "gpt-unlisted", None, *(["llama-x"] * 8)]
    with api.client() as client:
        done = ended(client, make(client, [_line(i, model) for i, model in enumerate(models)]))
        assert done.status == "completed"
        output = lines_of(client, done.output_file_id)
        errors = lines_of(client, done.error_file_id)
    assert [line["custom_id"] for line in output] == [
        f"request-{i}" for i in range(len(models)) if i not in (3, 4)
    ]
    assert sorted(sent.body["model"] for sent in provider.requests) == ["llama-small", "m"]
    assert {sent.body["model"] for sent in second.requests} == {"meta/llama"}
    assert len(second.requests) == 9
    assert all("openai-organization" not in sent.headers for sent in second.requests)
    assert second.peak_in_flight <= 2, "the route's concurrency"
    for line in errors:
        assert (line["response"], line["error"]["code"]) == (None, "model_not_found")
    everything = [json.dumps(routed.redis.hgetall(key)) for key in _hashes(routed)]
    assert not [text for text in everything if SECRET in text], "no key is in Redis"


def _hashes(deployment: Deployment) -> list[str]:
    redis = deployment.redis
    return [key for key in redis.scan_iter(count=1000) if redis.type(key) == "hash"]


def test_a_key_in_a_providers_words_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    from batchord.chains.explain import mask

    monkeypatch.setenv("A_ROUTES_KEY", SECRET)
    route = routes.Route.model_validate(
        {"pattern": "x", "base_url": "http://127.0.0.1/v1", "key_env": "A_ROUTES_KEY"}
    )
    try:
        routes.use((route,))
        assert mask(f"bad key {SECRET}!") == "bad key ***!"
    finally:
        routes.use(None)


_BASE = 'base_url = "http://127.0.0.1:1/v1"'

BAD = {
    "not there": (None, "cannot read"),
    "not TOML": ("routes = {", "is not TOML"),
    "empty": ("", "has no routes"),
    "no URL": ('[routes.m]\nmodel = "x"', "base_url: Field required"),
    "a bad URL": ('[routes.m]\nbase_url = "ftp://host"', "base_url: "),
    "a key": (f'[routes.m]\n{_BASE}\nkey_env = "sk-123"', "key_env: "),
    "a word too much": (f'[routes.m]\n{_BASE}\napi_key = "sk-1"', "api_key: Extra inputs"),
    "a bad limit": (f"[routes.m]\n{_BASE}\nrpm = 0", "rpm: "),
    "no table": ('[routes]\nm = "http://host"', "is no table"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_is_refused_with_the_cure(name: str, tmp_path: Path) -> None:
    text, words = BAD[name]
    path = tmp_path / "routes.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadRoutes, match=re.escape(words)) as caught:
        routes.load(path)
    assert "sk-1" not in str(caught.value)
    assert "BATCHORD_ROUTES" in str(caught.value)


def test_routes_beside_the_keys_are_to_be_known_to_the_workers(deployment: Deployment) -> None:
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    try:
        made = shell.run("serve", "--new-key", "ann").out
        (shell.folder / "keys.toml").write_text(f"{made}[routes.m]\n{_BASE}\n")
        answer = shell.run("serve", "--port", "0", "--keys", "keys.toml")
        assert answer.code == 2
        assert "set BATCHORD_ROUTES" in answer.err
    finally:
        shell.close()
