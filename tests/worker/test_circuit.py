"""Faults that no item can succeed with: they pause the batch, and no done work is paid again."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batchord import BatchPaused
from batchord.chains import register
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.producer import RemoteRunnable
from tests.conftest import Deploy
from tests.support.cli_harness import CHAINS, Shell, results
from tests.support.harness import Deployment, Process, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(60)

SLOTS = 8


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    for name in ("ask", "may-fail", "mend"):
        register(name, _same, replace=True)
    return deploy(shard_size=20, sweep_interval=0.2, alike_limit=10)


def _same(value: Any) -> Any:
    return value


def test_a_batch_all_of_whose_items_fail_alike_completes_and_says_so(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    start(deployment, provider)
    provider.fail_when(None, status=400)
    batch = deployment.client.submit("ask", [f"text {i}" for i in range(10)])
    record = batch.wait(30)
    assert (record.status, record.request_counts.failed) == (BatchStatus.COMPLETED, 10)
    assert record.reason is not None
    [code] = {item.error.code for item in batch.items() if item.error}
    assert record.reason.code == code


def start(deployment: Deployment, provider: OpenAIServer) -> Process:
    """Start a worker that knows the provider."""
    return deployment.start_worker(concurrency=SLOTS, env=provider_env(provider))


@pytest.mark.parametrize(
    ("status", "code", "ours"),
    [
        (401, None, "authentication_error"),
        (403, None, "permission_denied"),
        (404, None, "model_not_found"),
        (429, "insufficient_quota", "insufficient_quota"),
    ],
)
def test_a_key_that_expires_pauses_the_batch_and_nothing_is_paid_twice(
    deployment: Deployment, provider: OpenAIServer, status: int, code: str | None, ours: str
) -> None:
    start(deployment, provider)
    texts = [f"text number {i}" for i in range(300)]
    batch = deployment.client.submit("ask", texts)
    wait_until(lambda: batch.record().request_counts.done > 50, what="some are done")

    provider.fail_when(None, status=status, code=code)
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="the batch pauses")
    wait_until(lambda: batch.record().running == 0, what="nothing runs any more")
    reason = batch.record().reason
    assert reason is not None
    assert (reason.code, type(reason.index)) == (ours, int)
    refused = [request for request in provider.requests if request.status == status]
    assert 0 < len(refused) < SLOTS + 10
    assert batch.record().request_counts.failed == 0, "no item fails of it"
    calls = len(provider.requests)
    time.sleep(0.5)  # two sweeps
    assert len(provider.requests) == calls

    provider.forget_rules()
    batch.resume()
    record = batch.wait(20)
    assert (record.status, record.reason) == (BatchStatus.COMPLETED, None)
    assert batch.outputs() == [f"echo: Say {text}" for text in texts]
    assert {item.attempts for item in batch.results()} == {1}, "it has cost nobody an attempt"
    paid = Counter(
        request.body["messages"][-1]["content"].removeprefix("Say ")
        for request in provider.requests
        if request.status == 200
    )
    assert paid == dict.fromkeys(texts, 1)


def test_first_items_that_all_fail_alike_pause_the_batch_again_after_each_resume(
    deployment: Deployment,
) -> None:
    deployment.start_worker(concurrency=2)
    inputs = [{"value": i, "fail": "bug"} for i in range(100)]
    batch = deployment.client.submit("may-fail", inputs)
    for failed in (10, 20):
        wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses")
        reason = batch.record().reason
        assert reason is not None
        assert (reason.code, reason.index) == ("KeyError", None)
        assert "have all failed with KeyError" in reason.message
        wait_until(lambda: batch.record().running == 0, what="nothing runs any more")
        assert failed <= batch.record().request_counts.failed < failed + 10
        batch.resume()
    batch.cancel()
    assert batch.wait(10).status is BatchStatus.CANCELLED


def test_items_that_fail_in_different_ways_or_after_a_success_pause_nothing(
    deployment: Deployment,
) -> None:
    deployment.start_worker(concurrency=2)
    mixed = [{"value": i, "fail": "bug" if i % 2 else "chain"} for i in range(40)]
    late = [{"value": i, "fail": "bug" if i else None} for i in range(40)]
    for inputs in (mixed, late):
        batch = deployment.client.submit("may-fail", inputs)
        assert batch.wait(20).status is BatchStatus.COMPLETED


def test_it_can_be_turned_off(deploy: Deploy) -> None:
    register("may-fail", _same, replace=True)
    deployment = deploy(alike_limit=0)
    deployment.start_worker(concurrency=2)
    batch = deployment.client.submit("may-fail", [{"value": i, "fail": "bug"} for i in range(60)])
    assert batch.wait(20).request_counts.failed == 60


def test_who_calls_a_remote_chain_is_told(deployment: Deployment) -> None:
    deployment.start_worker(concurrency=2)
    chain = RemoteRunnable("may-fail", client=deployment.client)
    inputs = [{"value": i, "fail": "operator" if i == 5 else None} for i in range(10)]
    with pytest.raises(BatchPaused, match="authentication_error: no such key") as caught:
        chain.batch(inputs)
    batch = deployment.client.retrieve(caught.value.batch_id)
    assert batch.record().status is BatchStatus.PAUSED
    assert batch.items(5, 6).__iter__().__next__().status is ItemStatus.QUEUED
    batch.cancel()


def test_a_run_on_one_machine_ends_with_what_there_is(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "shell")
    try:
        inputs = [{"value": i, "fail": "operator" if i == 6 else None} for i in range(7)]
        shell.write("in.jsonl", inputs)
        answer = shell.run(
            *("run", "may-fail", "--chains", CHAINS, "--processes", "1", "--concurrency", "1"),
            *("-i", "in.jsonl", "-o", "out.jsonl"),
        )
        assert answer.code == 4, answer.err
        assert "Paused, authentication_error: no such key (item 6)" in answer.err
        assert "The 6 items that had ended are in out.jsonl" in answer.err
        assert "Mend it, and run this again" in answer.err
        assert [each["output"] for each in results(shell.folder / "out.jsonl")] == list(range(6))
        shell.check_nothing_is_left(timeout=0)
    finally:
        shell.close()


def test_status_says_why_it_is_paused(deployment: Deployment) -> None:
    deployment.start_worker(concurrency=1)
    batch = deployment.client.submit("may-fail", [{"value": 1, "fail": "operator"}])
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses")
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    try:
        answer = shell.run("status", batch.id)
        assert "Paused, authentication_error: no such key (item 0)" in answer.out
        assert shell.run("status", batch.id, "--json").json["reason"]["index"] == 0
    finally:
        shell.close()
    batch.cancel()
