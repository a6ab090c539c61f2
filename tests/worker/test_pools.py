"""The same promise in all pools: the event loop or threads of one process, and forked children."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.models import BatchStatus
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.copies import Copier
from tests.support.crew import Crew
from tests.support.harness import Deployment, wait_until
from tests.support.judge import Journal, judge

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["asyncio", "threads", "prefork"])
def pool(request: pytest.FixtureRequest) -> str:
    """Each pool."""
    return str(request.param)


@pytest.fixture
def quick(deploy: Deploy) -> Deployment:
    """A deployment whose leases and deadlines are short and whose workers sweep often."""
    register("work", _same, replace=True)
    return deploy(lease=1.0, sweep_interval=0.2, item_timeout=2.0)


@pytest.fixture
def crew(quick: Deployment, pool: str) -> Iterator[Crew]:
    """A worker of four, kept running."""
    with Crew(quick, pool=pool) as crew:
        yield crew


def _same(value: Any) -> Any:
    return value


def inputs(tmp_path: Path, count: int, **more: Any) -> list[dict[str, Any]]:
    common = {"journal": str(tmp_path / "journal"), "seconds": 0.01, **more}
    return [{"index": index, **common} for index in range(count)]


def some_done(batch: Batch, count: int) -> None:
    wait_until(lambda: batch.record().request_counts.done >= count, what=f"{count} are done")


@pytest.mark.parametrize("size", [1, 5])
def test_an_item_that_takes_too_long_fails_by_name_and_frees_its_slot(
    quick: Deployment, crew: Crew, tmp_path: Path, size: int
) -> None:
    slow = {3: "timeout", 8: "timeout", 12: "timeout", 17: "timeout", 18: "timeout"}
    many = inputs(tmp_path, 40)
    for index in slow:
        many[index]["seconds"] = 60.0
    batch = quick.client.submit("work", many, items_per_task=size)
    batch.wait(20)
    verdict = judge(quick.redis, batch, tmp_path / "journal", failed=slow)
    assert verdict.good, verdict
    assert verdict.most_starts == 1
    assert crew.replaced == 0
    [error] = {item.error.message for item in batch.results() if item.error is not None}
    assert "BATCHORD_ITEM_TIMEOUT" in error


@pytest.mark.parametrize("poison", ["exit", "segv"])
def test_poison_is_found_out_and_no_neighbour_is_blamed(
    quick: Deployment, crew: Crew, tmp_path: Path, poison: str
) -> None:
    many = inputs(tmp_path, 24)
    lost = {5: "worker_lost", 14: "worker_lost"}
    for index in lost:
        many[index]["poison"] = poison
    batch = quick.client.submit("work", many)
    batch.wait(50)
    verdict = judge(quick.redis, batch, tmp_path / "journal", failed=lost)
    assert verdict.good, verdict
    # One that was claimed beside the other may have died with it before its first line.
    assert [item.attempts for item in batch.results() if item.index in lost] == [3, 3]


def test_a_killed_child_or_worker_costs_no_item(
    quick: Deployment, crew: Crew, pool: str, tmp_path: Path
) -> None:
    batch = quick.client.submit("work", inputs(tmp_path, 40, seconds=0.3))
    # Not more: an item that happens to run in three that are killed cannot be told from poison.
    for done in (8, 24):
        some_done(batch, done)
        os.kill(_victim(tmp_path, pool), signal.SIGKILL)
    batch.wait(50)
    verdict = judge(quick.redis, batch, tmp_path / "journal")
    assert verdict.good, verdict
    assert verdict.most_starts > 1, "nobody was hurt"


def _victim(tmp_path: Path, pool: str) -> int:
    """The process that began an item last: in prefork a child, else the worker."""
    lines = (tmp_path / "journal").read_text().splitlines()
    return int([line for line in lines if line.startswith("start")][-1].split()[2])


def test_what_runs_of_a_cancelled_batch_is_stopped(
    deploy: Deploy, pool: str, tmp_path: Path
) -> None:
    register("work", _same, replace=True)
    deployment = deploy(lease=4.0, sweep_interval=0.2)
    with Crew(deployment, pool=pool) as crew:
        batch = deployment.client.submit("work", inputs(tmp_path, 30, seconds=60.0))
        wait_until(lambda: batch.record().running == 4, what="four items run")
        began = time.monotonic()
        batch.cancel()
        assert batch.wait(10).status is BatchStatus.CANCELLED
        assert time.monotonic() - began < 4, "it waited for the leases to run out"
        starts = sum(Journal.read(tmp_path / "journal").starts.values())
        after = deployment.client.submit("work", inputs(tmp_path, 8))
        after.wait(10)
        assert sum(Journal.read(tmp_path / "journal").starts.values()) == starts + 8
        assert crew.replaced == 0


def test_a_worker_that_is_stopped_and_then_cut_off_loses_nothing(
    quick: Deployment, pool: str, tmp_path: Path
) -> None:
    batch = quick.client.submit("work", inputs(tmp_path, 16, seconds=0.4))
    env = {"BATCHORD_CHAINS": "tests.chains_for_tests.journal", "REMAP_SIGTERM": "SIGQUIT"}
    first = quick.start_worker(concurrency=4, pool=pool, env=env)
    wait_until(lambda: batch.record().running == 4, what="four items run")
    first.stop()
    time.sleep(0.2)  # as docker, when its own patience ends before ours
    first.kill()
    with Crew(quick, pool=pool):
        batch.wait(20)
    verdict = judge(quick.redis, batch, tmp_path / "journal")
    assert verdict.good, verdict


def test_a_message_that_is_delivered_three_times_runs_its_items_once(
    quick: Deployment, pool: str, tmp_path: Path
) -> None:
    batch = quick.client.submit("work", inputs(tmp_path, 80, seconds=0.02))
    with Copier(quick, copies=2) as copier:
        wait_until(lambda: copier.copied > 50, what="messages are copied")
        with Crew(quick, pool=pool):
            batch.wait(20)
    verdict = judge(quick.redis, batch, tmp_path / "journal")
    assert verdict.good, verdict
    assert (verdict.repeated, verdict.most_starts) == (0, 1)


def test_what_celery_has_in_redis_may_be_deleted(
    quick: Deployment, crew: Crew, tmp_path: Path
) -> None:
    batch = quick.client.submit("work", inputs(tmp_path, 80, seconds=0.05))
    for done in (10, 40):
        some_done(batch, done)
        theirs = [key for key in quick.redis.scan_iter() if not key.startswith("batchord:")]
        assert quick.redis.delete(*theirs)
    batch.wait(20)
    verdict = judge(quick.redis, batch, tmp_path / "journal")
    assert verdict.good, verdict
