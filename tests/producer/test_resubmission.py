"""Items of a cancelled or expired batch that never ran, submitted again as a batch of their own."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.errors import SubmitRefused
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.cli_harness import Shell
from tests.support.harness import Deployment, lines_of, wait_until

pytestmark = pytest.mark.timeout(120)

#: More than two pages, with inputs that are compressed.
COUNT = 2100
RUNNING = 4


def _cancel(_: Deployment, batch: Batch) -> None:
    batch.cancel()


def _expire(deployment: Deployment, batch: Batch) -> None:
    """Let its window be over now; what runs is stopped."""
    deployment.redis.hset(f"batchord:{{{batch.id}}}:meta", "expires_at", 1)


ENDS: dict[str, tuple[Callable[[Deployment, Batch], None], timedelta | None, BatchStatus]] = {
    "cancelled": (_cancel, None, BatchStatus.CANCELLED),
    "expired": (_expire, timedelta(hours=1), BatchStatus.EXPIRED),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_has_never_run_runs_in_a_new_batch(deploy: Deploy, tmp_path: Path, name: str) -> None:
    end, window, status = ENDS[name]
    deployment = deploy(sweep_interval=0.3)
    deployment.start_worker(concurrency=RUNNING)
    paths = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate"), "more": "x" * 2000}
    inputs: list[dict[str, Any]] = [{**paths, "value": n} for n in range(COUNT)]
    for one in inputs[:6]:
        one["gate"] = str(tmp_path)  # is there
    batch = deployment.client.submit(
        "gated",
        inputs,
        custom_ids=[f"row-{n}" for n in range(COUNT)],
        metadata={"team": "a"},
        completion_window=window,
        priority=3,
    )
    wait_until(lambda: batch.record().request_counts.succeeded, what="some have run", timeout=60)
    end(deployment, batch)
    assert batch.wait(60).status is status
    left = [item.index for item in batch.results() if item.status is not ItemStatus.SUCCEEDED]
    assert COUNT - 6 <= len(left) < COUNT
    (tmp_path / "gate").touch()
    again = deployment.client.resubmit(batch.id)
    assert deployment.client.resubmit(batch.id).id == again.id, "it is the same batch"
    record = again.wait(90)
    assert record.status is BatchStatus.COMPLETED
    assert record.metadata == {"team": "a", "retry_of": batch.id}
    assert record.request_counts.succeeded == len(left)
    assert [item.custom_id for item in again.results()] == [f"row-{n}" for n in left]
    started = {int(line.split()[0]) for line in lines_of(tmp_path / "starts")}
    assert started == set(range(COUNT))


def _completed(deployment: Deployment) -> Batch:
    batch = deployment.client.submit("double", [1])
    batch.wait(60)
    return batch


def _going_on(deployment: Deployment) -> Batch:
    batch = deployment.client.submit("nap", [{"seconds": 0.5, "value": n} for n in range(60)])
    batch.pause()
    return batch


#: Batches of which nothing can be submitted again, and why.
REFUSED: dict[str, tuple[Callable[[Deployment], Batch], str]] = {
    "completed": (_completed, "is completed: only what a cancelled or expired batch has not run"),
    "paused": (_going_on, "is paused: only what a cancelled or expired batch has not run"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_only_what_was_cancelled_or_has_expired_is_submitted_again(
    shared: Deployment, name: str
) -> None:
    make, why = REFUSED[name]
    for chain in ("double", "nap"):
        register(chain, str, replace=True)
    batch = make(shared)
    with pytest.raises(SubmitRefused, match=why):
        shared.client.resubmit(batch.id)
    shell = Shell(shared.folder / f"shell-{name}", BATCHORD_REDIS_URL=shared.url)
    answer = shell.run("resubmit", batch.id)
    assert (answer.code, answer.out) == (2, "")
    assert why in answer.err
    batch.cancel()
    if name == "paused":
        batch.wait(30)
        new = shell.run("resubmit", batch.id).out.strip()
        left = [each.index for each in batch.results() if each.status is ItemStatus.CANCELLED]
        assert shared.client.retrieve(new).outputs() == left
