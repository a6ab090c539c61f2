"""Batches are found again, and what is gone is said at once."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import Usage, register
from batchord.ledger.errors import UnknownBatch
from batchord.ledger.models import BatchStatus
from batchord.producer import Batch, Client
from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(60)


def test_a_batch_is_found_again_by_its_id(shared: Deployment) -> None:
    batch = shared.client.submit("echo", ["a", "b"], custom_ids=["x", "y"], metadata={"team": "a"})
    with Client(settings=shared.settings) as other:
        found = other.retrieve(batch.id)
        record = found.wait(10)
        assert (record.id, record.chain, record.metadata) == (batch.id, "echo", {"team": "a"})
        assert [(item.custom_id, item.output) for item in found.results()] == [
            ("x", "a"),
            ("y", "b"),
        ]
        assert [item.custom_id for item in found.as_completed()] != [None, None]
    times = (record.created_at, record.in_progress_at, record.finalizing_at, record.ended_at)
    assert None not in times
    assert sorted(time for time in times if time is not None) == list(times)
    assert all(time.utcoffset().total_seconds() == 0 for time in times)  # type: ignore[union-attr]


#: What reads the record again, or tells what it says now; and the status that is known then.
REFRESHED: dict[str, tuple[Callable[[Batch], object], BatchStatus]] = {
    "record": (lambda batch: batch.record(), BatchStatus.COMPLETED),
    "wait": (lambda batch: batch.wait(10), BatchStatus.COMPLETED),
    "results": (lambda batch: list(batch.results()), BatchStatus.COMPLETED),
    "as_completed": (lambda batch: list(batch.as_completed()), BatchStatus.COMPLETED),
    "outputs": (lambda batch: batch.outputs(), BatchStatus.COMPLETED),
    "pause": (lambda batch: batch.pause(), BatchStatus.COMPLETED),
    "cancel": (lambda batch: batch.cancel(), BatchStatus.COMPLETED),
    "retry_failed": (lambda batch: batch.retry_failed(), BatchStatus.COMPLETED),
    "nothing": (lambda batch: batch.progress(), BatchStatus.IN_PROGRESS),
}


@pytest.mark.parametrize("what", REFRESHED)
def test_the_status_is_the_last_known_one(shared: Deployment, tmp_path: Path, what: str) -> None:
    gate = tmp_path / "gate"
    held = {"value": 1, "path": str(tmp_path / "starts"), "gate": str(gate)}
    batch = shared.client.submit("gated", [held])
    assert batch.request_counts.total == 1
    assert not batch.status.ended
    gate.touch()
    shared.client.retrieve(batch.id).wait(60)
    refresh, status = REFRESHED[what]
    refresh(batch)
    assert batch.status is status
    assert shared.client.purge(batch.id)
    assert batch.status is status, "no call is made"
    with pytest.raises(UnknownBatch):
        batch.record()


def test_custom_ids_are_with_their_items_across_pages(deployment: Deployment) -> None:
    register("echo", str, replace=True)
    batch = deployment.client.submit("echo", range(2100), custom_ids=map(str, range(2100)))
    assert [(item.index, item.custom_id) for item in batch.items()] == [
        (i, str(i)) for i in range(2100)
    ]


def test_batches_are_listed_newest_first_in_pages(deployment: Deployment) -> None:
    register("echo", str, replace=True)
    assert deployment.client.list() == []
    ids = [deployment.client.submit("echo", [i]).id for i in range(5)]
    newest = ids[::-1]
    assert [record.id for record in deployment.client.list()] == newest
    assert [record.id for record in deployment.client.list(limit=2)] == newest[:2]
    second = deployment.client.list(limit=2, after=newest[1])
    assert [record.id for record in second] == newest[2:4]
    assert [record.id for record in deployment.client.list(after=newest[3])] == newest[4:]
    assert deployment.client.list(after=newest[4]) == []
    with pytest.raises(UnknownBatch):
        deployment.client.list(after="batch_" + "0" * 24)


def test_a_batch_whose_time_is_over_leaves_the_list(deploy: Deploy) -> None:
    deployment = deploy(result_ttl=1)
    deployment.start_worker()
    batch = deployment.client.submit("echo", [1])
    batch.wait(10)
    assert [record.id for record in deployment.client.list()] == [batch.id]
    wait_until(lambda: not deployment.client.list(), what="it is gone", timeout=5)
    with pytest.raises(UnknownBatch):
        deployment.client.retrieve(batch.id)
    # Celery's note that the gather was sent (`...shard-0.c`) lives a few minutes longer.
    left = [key for key in deployment.keys_of(batch) if not key.endswith(".c")]
    assert left == []


@pytest.mark.parametrize(
    "batch_id",
    ["batch_" + "0" * 24, "", "batch_", "x" * 1000, "*", "{}", "\ud800", "a\nb"],
    ids=range(8),
)
def test_an_unknown_id_is_said_at_once(deployment: Deployment, batch_id: str) -> None:
    started = time.monotonic()
    with pytest.raises(UnknownBatch, match="unknown batch") as caught:
        deployment.client.retrieve(batch_id)
    assert time.monotonic() - started < 1
    assert "\n" not in str(caught.value)
    with pytest.raises(UnknownBatch):
        deployment.client.list(after=batch_id)


WAITS: dict[str, Callable[[Batch], Any]] = {
    "wait": lambda batch: batch.wait(),
    "results": lambda batch: list(batch.results()),
    "as_completed": lambda batch: list(batch.as_completed()),
    "outputs": lambda batch: batch.outputs(),
}


def test_readers_that_wait_are_told_when_the_server_lost_its_data(deployment: Deployment) -> None:
    register("echo", str, replace=True)
    batch = deployment.client.submit("echo", [1, 2])
    with ThreadPoolExecutor(len(WAITS)) as pool:
        waiting = [pool.submit(read, batch) for read in WAITS.values()]
        wait_until(
            lambda: int(deployment.redis.info("clients")["blocked_clients"]) >= len(WAITS),
            what="all of them wait for news",
        )
        deployment.redis.flushdb()
        started = time.monotonic()
        for reader in waiting:
            with pytest.raises(UnknownBatch, match="submit it again"):
                reader.result(10)
        assert time.monotonic() - started < 5
    for read in (
        lambda: batch.record().status,
        batch.record,
        batch.wait,
        lambda: list(batch.items()),
    ):
        with pytest.raises(UnknownBatch):
            read()


def test_after_a_loss_the_same_is_submitted_again_and_runs(deploy: Deploy) -> None:
    deployment = deploy(sweep_interval=0.3)
    deployment.start_worker()
    first = deployment.client.submit("double", [1, 2], idempotency_key="key")
    assert first.outputs() == [2, 4]
    first.wait(10)
    deployment.redis.flushdb()
    wait_until(deployment.client.chains, what="the workers announced their chains again")
    again = deployment.client.submit("double", [1, 2], idempotency_key="key")
    assert again.id != first.id
    assert again.wait(15).status is BatchStatus.COMPLETED
    assert again.outputs() == [2, 4]


def test_waiting_no_longer_than_the_timeout_leaves_the_batch_running(shared: Deployment) -> None:
    batch = shared.client.submit("nap", [{"value": 1, "seconds": 2.0}])
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=batch.id):
        batch.wait(0.2)
    assert time.monotonic() - started >= 0.2
    assert not batch.record().status.ended
    with pytest.raises(TimeoutError):
        batch.wait(0)
    assert batch.wait(10).status is BatchStatus.COMPLETED
    assert batch.wait(0).request_counts.succeeded == 1


def test_workers_announce_their_chains_with_their_types(shared: Deployment) -> None:
    chains = shared.client.chains()
    assert {"double", "repeat", "ask"} <= set(chains)
    assert chains["double"].input_schema == {"type": "integer"}
    assert chains["repeat"].output_schema == {"type": "string"}
    assert chains["echo"].input_schema is None


@pytest.fixture
def asked(deploy: Deploy) -> Any:
    """A deployment whose worker asks a loopback provider."""
    with OpenAIServer() as server:
        deployment = deploy()
        env = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-loopback-only"}
        deployment.start_worker(env=env)
        yield deployment, server


def test_usage_is_summed_over_items_and_batch(asked: tuple[Deployment, OpenAIServer]) -> None:
    deployment, server = asked
    server.fail_next(500, match="flaky")
    server.fail_next(400, match="wrong")
    batch = deployment.client.submit("ask", ["one", "flaky", "wrong", "three"])
    record = batch.wait(30)
    assert (record.request_counts.succeeded, record.request_counts.failed) == (3, 1)
    items = list(batch.results())
    assert all(item.usage is not None for item in items if item.error is None)
    assert items[2].error is not None
    assert (items[2].error.code, items[2].error.http_status) == ("bad_request", 400)
    assert items[2].error.step == "Chat"
    total = Usage()
    for item in items:
        total += item.usage or Usage()
    assert record.usage == total
    assert record.usage is not None
    assert record.usage.requests == len(server.requests) == 5
    assert (record.usage.total_tokens or 0) > 0


def test_usage_is_unknown_where_no_model_was_asked(shared: Deployment) -> None:
    batch = shared.client.submit("echo", [1])
    assert batch.wait(10).usage is None
    assert [item.usage for item in batch.results()] == [None]
