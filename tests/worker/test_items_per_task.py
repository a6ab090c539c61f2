"""A task may carry many items: each keeps its own outcome, error, attempts, deadline and place."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import Embed, register
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.harness import Deployment, lines_of, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(autouse=True)
def _chains() -> None:
    for name in ("echo", "gated", "timed", "may-fail", "embed", "nap"):
        register(name, _same, replace=True)


def _same(value: Any) -> Any:
    return value


def cuts(deployment: Deployment, batch: Batch) -> list[tuple[int, int, int]]:
    """Start, stop and items per task of each shard, in order."""
    shards = deployment.redis.hgetall(f"batchord:{{{batch.id}}}:shards")
    found = []
    for number in range(len(shards)):
        start, stop, per_task = map(int, shards[str(number)].split())
        found.append((start, stop, per_task))
    return found


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1000])
def test_each_item_has_its_own_outcome_in_its_place(shared: Deployment, size: int) -> None:
    fails = {3: "bug", 20: "chain", 21: "later", 119: "chain"}
    codes = {3: "KeyError", 20: "refusal", 21: "rate_limited", 119: "refusal"}
    inputs = [{"value": i, "seconds": (i % 5) / 100, "fail": fails.get(i)} for i in range(120)]
    batch = shared.client.submit("may-fail", inputs, items_per_task=size)
    items = list(batch.results())
    assert [item.index for item in items] == list(range(120))
    assert {item.index: item.error.code for item in items if item.error} == codes
    assert all(item.output == item.index for item in items if item.index not in codes)
    assert {item.attempts for item in items} == {1}
    assert all(item.duration is not None and item.settled_at for item in items)
    record = batch.wait(10)
    assert (record.request_counts.succeeded, record.request_counts.failed) == (116, 4)
    assert {per_task for _, _, per_task in cuts(shared, batch)} == {size}
    spans = [(start, stop) for start, stop, _ in cuts(shared, batch)]
    assert spans[0][0] == 0
    assert spans[-1][1] == 120
    assert all(one[1] == two[0] for one, two in pairwise(spans))


def test_auto_is_one_item_a_task_for_what_takes_time(deploy: Deploy) -> None:
    deployment = deploy(shard_size=20)
    deployment.start_worker(concurrency=16)
    batch = deployment.client.submit("nap", [{"value": i, "seconds": 0.02} for i in range(400)])
    assert batch.outputs() == list(range(400))
    assert [per_task for _, _, per_task in cuts(deployment, batch)] == [1] * 20


def test_auto_is_more_once_the_first_items_were_short(deploy: Deploy) -> None:
    deployment = deploy(shard_size=20)
    deployment.start_worker()
    batch = deployment.client.submit("double", range(3000))
    assert batch.outputs() == [2 * i for i in range(3000)]
    sizes = [per_task for _, _, per_task in cuts(deployment, batch)]
    assert sizes[0] == 1, "it is not known yet how long an item takes"
    assert max(sizes) > 1
    assert max(sizes) <= 100


def test_the_items_of_all_tasks_share_one_limit(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy()
    path = tmp_path / "times"
    inputs = [{"value": i, "seconds": 0.02, "path": str(path)} for i in range(60)]
    deployment.start_worker(concurrency=4)
    batch = deployment.client.submit("timed", inputs, items_per_task=10)
    assert batch.outputs() == list(range(60))
    spans = [tuple(map(float, line.split())) for line in lines_of(path)]
    most = max(sum(start <= at < end for start, end in spans) for at, _ in spans)
    assert 2 <= most <= 4


def test_a_slow_item_does_not_idle_the_slots_of_its_neighbours(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy()
    deployment.start_worker(concurrency=2)
    paths = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    slow = deployment.client.submit("gated", [{"value": 0, **paths}])
    wait_until(lambda: lines_of(tmp_path / "starts"), what="the slow one holds one of two slots")
    batch = deployment.client.submit("echo", range(100), items_per_task=10)
    assert batch.outputs() == list(range(100))
    assert not slow.record().status.ended
    (tmp_path / "gate").touch()
    slow.wait(10)


def test_slow_items_hold_up_nothing_but_their_own_shards(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(shard_size=5, shards_in_flight=4, sweep_interval=60)
    deployment.start_worker(concurrency=8)
    gate = tmp_path / "gate"
    path = {"path": str(tmp_path / "starts")}
    # One of each of the first shards: were they waited for, nothing more would be published.
    slow = set(range(0, 25, 5))
    inputs = [
        {"value": i, **path, "gate": str(gate if i in slow else tmp_path)} for i in range(100)
    ]
    batch = deployment.client.submit("gated", inputs, items_per_task=1)
    wait_until(
        lambda: batch.record().request_counts.done == 95, what="all but the slow ones are done"
    )
    gate.touch()
    assert batch.wait(20).status is BatchStatus.COMPLETED


def test_a_task_that_waits_here_could_run_elsewhere(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy()
    workers = [deployment.start_worker(concurrency=4, wait=False) for _ in range(2)]
    for worker in workers:
        deployment.wait_for_worker(worker)
    paths = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    inputs = [{"value": i, **paths} for i in range(40)]
    batch = deployment.client.submit("gated", inputs, items_per_task=5)
    # Eight tasks; one worker alone could take four of them by Celery's count, and hold 20 items.
    wait_until(lambda: len(lines_of(tmp_path / "starts")) == 8, what="both have all slots in use")
    pids = [int(line.split()[1]) for line in lines_of(tmp_path / "starts")]
    assert {pids.count(pid) for pid in pids} == {4}
    assert deployment.queued() >= 4, "one task in use, one that waits, for each worker at most"
    (tmp_path / "gate").touch()
    assert batch.wait(20).status is BatchStatus.COMPLETED


def test_only_what_ran_in_a_killed_worker_runs_again(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(lease=1.0, sweep_interval=0.2)
    first = deployment.start_worker(concurrency=4)
    gate = tmp_path / "gate"
    quick, slow = {"gate": str(tmp_path)}, {"gate": str(gate)}
    path = {"path": str(tmp_path / "starts")}
    inputs = [{"value": i, **path, **(quick if i < 6 else slow)} for i in range(12)]
    batch = deployment.client.submit("gated", inputs, items_per_task=12)
    wait_until(lambda: batch.record().request_counts.done == 6, what="half of the task is settled")
    wait_until(lambda: len(lines_of(tmp_path / "starts")) == 10, what="four more run")
    first.kill()
    gate.touch()
    second = deployment.start_worker(concurrency=4)
    assert batch.wait(30).request_counts.succeeded == 12
    items = list(batch.results())
    assert [item.attempts for item in items] == [1] * 6 + [2] * 4 + [1] * 2
    assert [item.output for item in items] == [first.pid] * 6 + [second.pid] * 6
    assert len(lines_of(tmp_path / "starts")) == 16


def test_each_item_has_its_own_deadline(shared: Deployment) -> None:
    register("overrun", _same, replace=True)
    inputs = [{"value": i, "seconds": 2.5 if i == 3 else 0.0} for i in range(8)]
    batch = shared.client.submit("overrun", inputs, items_per_task=8)
    items = list(batch.results())
    assert items[3].error is not None
    assert items[3].error.code == "timeout"
    assert [item.status for item in items].count(ItemStatus.SUCCEEDED) == 7


def test_a_chain_with_a_natural_size_has_it_without_being_asked(deploy: Deploy) -> None:
    with OpenAIServer() as server:
        deployment = deploy()
        worker = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "k"}
        deployment.start_worker(concurrency=2, env=worker)
        texts = [f"text {i}" for i in range(2500)]
        register("embed", Embed("test-embedding", dimensions=8), replace=True)
        batch = deployment.client.submit("embed", texts)
        vectors = batch.outputs()
        assert len(vectors) == 2500
        assert {len(vector) for vector in vectors} == {8}
        assert cuts(deployment, batch)[0] == (0, 1000, 1000)
        assert len(server.requests) == 3
        assert {len(request.body["input"]) for request in server.requests} == {1000, 500}
