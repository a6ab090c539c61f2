"""The server is killed at its worst places: nothing is lost, made twice, or left behind."""

from collections import Counter
from pathlib import Path

import httpx2
import openai
import pytest

from batchord.ledger.core.failpoints import VARIABLE
from tests.conftest import Deploy
from tests.support.api_server import ApiServer, ended, jsonl, lines_of, request
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(180)

COUNT = 150

#: Where it dies, and whether the caller had its answer by then.
POINTS = {
    "batch-before-create": False,
    "batch-after-create": False,
    "validation-half": True,
    "before-seal": True,
    "after-seal": True,
    "half-published": True,
    "validation-before-conclude": True,
}


@pytest.fixture(scope="module")
def hurried(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Deployment:
    """A worker, and short leases, so that what a kill leaves is soon taken over."""
    deployment = deploy_for_module(lease=2.0, sweep_interval=0.5, submit_timeout=4.0)
    env = {**provider_env(provider_for_module), "BATCHORD_CHAINS": ""}
    deployment.start_worker(concurrency=32, env=env)
    return deployment


@pytest.mark.parametrize("point", POINTS)
def test_a_batch_is_made_once_whenever_the_server_dies(
    point: str, hurried: Deployment, provider_for_module: OpenAIServer, tmp_path: Path
) -> None:
    provider_for_module.reset()
    mark = tmp_path / "mark"
    server = ApiServer(hurried, env={VARIABLE: f"{point}:{mark}"})
    name = {"Idempotency-Key": f"key-{point}"}
    with server.client(max_retries=0) as client:
        content = jsonl(request(i, f"{point} {i}") for i in range(COUNT))
        file = client.files.create(file=("a.jsonl", content), purpose="batch")
        ask = {
            "input_file_id": file.id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "extra_headers": name,
        }
        if POINTS[point]:
            client.batches.create(**ask)  # type: ignore[arg-type]
        else:
            with pytest.raises(openai.APIConnectionError):
                client.batches.create(**ask)  # type: ignore[arg-type]
        wait_until(lambda: not server.process.alive, "it dies there", timeout=60)
        assert mark.exists()
        server.start()
        batch = client.batches.create(**ask)  # type: ignore[arg-type]
        done = ended(client, batch, timeout=120)
        assert (done.status, done.request_counts.completed) == ("completed", COUNT)
        found = [line["custom_id"] for line in lines_of(client, done.output_file_id)]
        assert found == [f"request-{i}" for i in range(COUNT)]
        assert [each.input_file_id for each in client.batches.list()].count(file.id) == 1
    posted = Counter(sent.text for sent in provider_for_module.requests)
    assert set(posted.values()) == {1}, "each request was made once"
    server.process.kill()


@pytest.mark.parametrize("point", ["upload-half", "upload-before-record"])
def test_an_upload_that_was_cut_off_leaves_nothing_for_good(
    point: str, hurried: Deployment, tmp_path: Path
) -> None:
    server = ApiServer(hurried, env={VARIABLE: f"{point}:{tmp_path / 'mark'}"})
    before = server.files
    with server.client(max_retries=0) as client:
        known = [each.id for each in client.files.list()]
        with pytest.raises(openai.APIConnectionError):
            client.files.create(file=("a.jsonl", b"x" * 3_000_000), purpose="batch")
        wait_until(lambda: not server.process.alive, "it dies there", timeout=60)
        server.start()
        assert [each.id for each in client.files.list()] == known
        [left] = [name for name in server.files if name not in before]
        # Its hour is over.
        hurried.redis.zadd("batchord:api:bytes", {left.removesuffix(".part"): 0})
        wait_until(lambda: server.files == before, "the bytes are gone", timeout=60)
        again = client.files.create(file=("a.jsonl", b"x" * 3_000_000), purpose="batch")
        assert client.files.retrieve(again.id).bytes == 3_000_000
    server.process.kill()


def test_a_content_that_was_cut_off_is_no_whole_one(
    hurried: Deployment, provider_for_module: OpenAIServer, tmp_path: Path
) -> None:
    provider_for_module.reset()
    server = ApiServer(hurried, env={VARIABLE: f"content-half:{tmp_path / 'mark'}"})
    with server.client(max_retries=0) as client:
        content = jsonl(request(i, f"{i} " + "word " * 100) for i in range(COUNT))
        file = client.files.create(file=("a.jsonl", content), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        done = ended(client, batch, timeout=120)
        with pytest.raises((openai.APIConnectionError, httpx2.HTTPError)):
            client.files.content(done.output_file_id).read()
        wait_until(lambda: not server.process.alive, "it dies there", timeout=60)
        server.start()
        assert len(lines_of(client, done.output_file_id)) == COUNT
    server.process.kill()
