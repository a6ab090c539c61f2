"""Large lines: pictures reach the provider, and Redis holds where they are alone."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Deploy
from tests.support.api_server import ApiServer, ended, lines_of, make, request
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(180)

PICTURE = "data:image/png;base64," + base64.b64encode(os.urandom(1_500_000)).decode()


def _line(number: int, text: str, picture: str = PICTURE) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": picture}},
    ]
    body = {"model": "m", "messages": [{"role": "user", "content": parts}]}
    return request(number, body=body)


@pytest.fixture(scope="module")
def large(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Deployment:
    deployment = deploy_for_module(sweep_interval=0.5, lease=2.0)
    _start_worker(deployment, provider_for_module, str(deployment.folder / "home"))
    return deployment


def _start_worker(deployment: Deployment, provider: OpenAIServer, home: str) -> None:
    env = {**provider_env(provider), "BATCHORD_CHAINS": "", "BATCHORD_HOME": home}
    deployment.start_worker(env=env)


@pytest.fixture(scope="module")
def api(large: Deployment) -> ApiServer:
    return ApiServer(large)


def _posted(provider: OpenAIServer) -> list[str]:
    said = [sent.body["messages"][0]["content"] for sent in provider.requests]
    return [parts[1]["image_url"]["url"] for parts in said if isinstance(parts, list)]


def _bytes_in_redis(deployment: Deployment, batch_id: str) -> int:
    return sum(deployment.redis.memory_usage(key) for key in deployment.keys_of(batch_id))


def _come_due(deployment: Deployment, file_id: str) -> None:
    deployment.redis.zadd("batchord:api:bytes", {file_id: 0}, xx=True)


def test_pictures_go_by_reference_and_their_bytes_go_with_the_batch(
    api: ApiServer, large: Deployment, provider: OpenAIServer
) -> None:
    provider.fail_when("fails once", status=400)
    with api.client() as client:
        lines = [_line(0, "a"), request(1, "small"), _line(2, "b"), _line(3, "fails once")]
        batch = make(client, lines)
        done = ended(client, batch)
        assert (done.request_counts.completed, done.request_counts.failed) == (3, 1)
        found = [line["custom_id"] for line in lines_of(client, done.output_file_id)]
        assert found == ["request-0", "request-1", "request-2"]
        assert _bytes_in_redis(large, batch.id) < 100_000
        assert client.files.delete(batch.input_file_id).deleted
        # The bytes stay for a retry.
        assert batch.input_file_id in api.files
        provider.forget_rules()
        large.client.retrieve(batch.id).retry_failed()
        assert ended(client, batch).request_counts.completed == 4
        assert _posted(provider) == [PICTURE] * 4
        large.client.purge(batch.id)
        _come_due(large, batch.input_file_id)
        wait_until(lambda: batch.input_file_id not in api.files, "the bytes are gone", timeout=60)


def test_equal_pictures_run_once_with_dedupe(
    api: ApiServer, large: Deployment, provider: OpenAIServer
) -> None:
    with api.client() as client:
        lines = [_line(i, "same") for i in range(3)]
        done = ended(client, make(client, [*lines, _line(3, "x")], extra_body={"dedupe": True}))
    assert done.request_counts.completed == 4
    assert len(_posted(provider)) == 2


def test_a_worker_that_cannot_read_the_files_pauses_the_batch_and_nothing_is_lost(
    deploy_for_module: Deploy, provider: OpenAIServer, tmp_path: Path
) -> None:
    deployment = deploy_for_module()
    api = ApiServer(deployment)
    _start_worker(deployment, provider, str(tmp_path / "another"))
    with api.client() as client:
        batch = make(client, [_line(0, "a")])
        record = wait_until(
            lambda: _paused(client.batches.retrieve(batch.id)), "it pauses", timeout=60
        )
        assert record["reason"]["code"] == "file_unreadable"
        assert "BATCHORD_FILES" in record["reason"]["message"]
        deployment.processes[-1].kill()
        _start_worker(deployment, provider, str(deployment.folder / "home"))
        deployment.client.retrieve(batch.id).resume()
        assert ended(client, batch).request_counts.completed == 1


def _paused(batch: Any) -> Any:
    more = batch.model_extra["batchord"]
    return more if more["paused"] else None
