"""Provider mode under kill -9: nothing is sent or paid for twice, and nothing is lost."""

from typing import Any

import pytest

from batchord.chains import Chat, Prompt, register
from batchord.ledger.core.failpoints import VARIABLE
from batchord.ledger.models import BatchStatus
from tests.conftest import Deploy
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(90)

ITEMS = 50


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    register("ask", Prompt("Say {word}") | Chat("test-model"), replace=True)
    return deploy(
        sweep_interval=0.1,
        provider_poll=0.1,
        lease=1.0,
        shard_size=10,
        provider_requests=30,
    )


def start(deployment: Deployment, provider: OpenAIServer, **env: str) -> None:
    env = provider_env(provider) | env
    for worker in [deployment.start_worker(env=env, wait=False) for _ in range(2)]:
        deployment.wait_for_worker(worker)


def words(n: int) -> list[str]:
    return [f"number {i}" for i in range(n)]


@pytest.mark.parametrize(
    ("point", "retry"),
    [
        ("half-built", None),
        ("before-upload", None),
        ("after-upload", None),
        ("before-create", None),
        ("after-create", None),
        ("half-read", None),
        ("half-dealt", None),
        ("half-dealt", "live"),
    ],
)
def test_a_killed_worker_leaves_nothing_done_twice_and_nothing_undone(
    deployment: Deployment, provider: OpenAIServer, point: str, retry: Any
) -> None:
    provider.fail_next(503, match="number 7")
    mark = deployment.folder / "died"
    start(deployment, provider, **{VARIABLE: f"{point}:{mark}"})
    batch = deployment.client.submit("ask", words(ITEMS), mode="provider", provider_retry=retry)
    record = batch.wait(40)
    assert mark.exists(), "a worker died there"
    assert sum(process.alive for process in deployment.processes) == 1
    counts = record.request_counts
    failed = 0 if retry else 1
    assert (record.status, counts.failed) == (BatchStatus.COMPLETED, failed)
    good = [item for item in batch.results() if item.error is None]
    assert [item.output for item in good] == [f"echo: Say number {item.index}" for item in good]
    assert len(provider.batches.uploads) == 2
    assert len(provider.batches.batches) == 2
    assert provider.batches.executed == {f"{batch.id}:{i}": 1 for i in range(ITEMS)}
    live = [one for one in provider.requests if one.path == "/v1/chat/completions"]
    assert len(live) == (1 if retry else 0)


def test_a_batch_that_was_created_without_a_trace_here_is_cancelled_there(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    """Killed between the provider's answer and the note of it; cancelled before anyone looks."""
    provider.batches.behaviour.held = True
    mark = deployment.folder / "died"
    deployment.start_worker(env={VARIABLE: f"after-create:{mark}", **provider_env(provider)})
    batch = deployment.client.submit("ask", words(10), mode="provider")
    wait_until(mark.exists, what="the worker died")
    assert batch.cancel() is BatchStatus.CANCELLING
    start(deployment, provider)
    assert batch.wait(30).request_counts.cancelled == 10
    assert [each["status"] for each in provider.batches.batches.values()] == ["cancelled"]
