"""A batch travels as real chords, shard by shard, and is committed once."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chains import register
from ledger.models import BatchStatus
from ledger.wire import GATHER, RUN_ITEM, gather_task_id, item_task_id, shard_group_id
from tests.conftest import Deploy
from tests.harness import Deployment, lines_of, wait_until

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(autouse=True)
def _chains() -> None:
    for name in ("echo", "gated", "timed"):
        register(name, _same, replace=True)


def _same(value: Any) -> Any:
    return value


def messages(deployment: Deployment) -> Iterator[dict[str, Any]]:
    """The headers of the messages in the queue, oldest first."""
    for text in reversed(deployment.redis.lrange(deployment.settings.queue, 0, -1)):
        yield json.loads(text)["headers"]


def test_a_shard_is_published_as_a_celery_group_of_one_task_an_item(deploy: Deploy) -> None:
    deployment = deploy(shard_size=4, shards_in_flight=2)
    batch = deployment.client.submit("echo", range(10))
    found = list(messages(deployment))
    assert [header["task"] for header in found] == [RUN_ITEM] * 8
    assert [header["id"] for header in found] == [item_task_id(batch.id, i) for i in range(8)]
    groups = [header["group"] for header in found]
    assert groups == [shard_group_id(batch.id, i // 4) for i in range(8)]


def test_the_chord_counts_its_parts_and_one_gather_closes_each_shard(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy(shard_size=6, shards_in_flight=1, lease=30, sweep_interval=60)
    paths = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    batch = deployment.client.submit("gated", [{"value": i, **paths} for i in range(15)])
    worker = deployment.start_worker(concurrency=6)
    wait_until(lambda: len(lines_of(tmp_path / "starts")) == 6, what="the first shard runs")
    [size] = deployment.redis.scan_iter(f"*{shard_group_id(batch.id, 0)}.s")
    assert deployment.redis.get(size) == "6"
    (tmp_path / "gate").touch()
    assert batch.wait(20).status is BatchStatus.COMPLETED
    for shard in range(3):
        task_id = gather_task_id(batch.id, shard)
        wait_until(lambda: f"{GATHER}[{task_id}] succeeded" in worker.log, what="the gather ends")  # noqa: B023
        assert worker.log.count(f"{GATHER}[{task_id}] received") == 1
    assert worker.log.count("batch committed") == 1
    assert "sent again" not in worker.log, "the chord did it, and not the sweep"


def test_the_queue_stays_as_short_as_the_window_of_shards(deploy: Deploy) -> None:
    deployment = deploy(shard_size=500, shards_in_flight=2)
    batch = deployment.client.submit("echo", range(2500))
    assert deployment.queued() == 1000
    workers = [deployment.start_worker(wait=False, concurrency=16) for _ in range(2)]
    longest = 0

    def ended() -> bool:
        nonlocal longest
        waiting, unacked = deployment.redis.pipeline().llen("batchord").hlen("unacked").execute()
        longest = max(longest, waiting + unacked)
        return batch.status.ended

    wait_until(ended, what="the batch has ended", timeout=60)
    # A gather is in the queue while its shard is still in flight.
    assert 1000 <= longest <= 1000 + 2
    assert batch.outputs() == list(range(2500))
    commits = sum(worker.log.count("batch committed") for worker in workers)
    assert commits == 1
    gathers = sum(worker.log.count("shard closed") for worker in workers)
    assert gathers == 5


def test_keys_get_their_end_at_the_commit_and_not_before(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(result_ttl=600)
    paths = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    inputs = [{"value": i, **paths} for i in range(3)]
    batch = deployment.client.submit(
        "gated", inputs, custom_ids=["a", "b", "c"], metadata={"k": "v"}, idempotency_key="key"
    )
    deployment.start_worker()
    wait_until(lambda: len(lines_of(tmp_path / "starts")) == 3, what="all items run")

    def lives() -> dict[str, int]:
        keys = list(deployment.redis.scan_iter(f"batchord:{{{batch.id}}}:*"))
        keys += deployment.redis.scan_iter("batchord:key:*")
        return {key: deployment.redis.ttl(key) for key in keys}

    before = lives()
    assert len(before) >= 6
    assert set(before.values()) == {-1}
    (tmp_path / "gate").touch()
    batch.wait(10)
    wait_until(lambda: -1 not in lives().values(), what="the idempotency key has its end too")
    after = lives()
    assert len(after) >= 6
    assert all(590 <= ttl <= 600 for ttl in after.values())
    wait_until(lambda: not deployment.redis.zcard("batchord:active"), what="it is active no more")
    assert list(deployment.redis.scan_iter("celery-task-meta-*")) == []


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_max_concurrency_bounds_the_items_in_flight_across_workers(
    shared: Deployment, tmp_path: Path, limit: int
) -> None:
    path = tmp_path / "times"
    inputs = [{"value": i, "seconds": 0.03, "path": str(path)} for i in range(20)]
    batch = shared.client.submit("timed", inputs, max_concurrency=limit)
    assert batch.outputs() == list(range(20))
    spans = [tuple(map(float, line.split())) for line in lines_of(path)]
    most = max(sum(start <= at < end for start, end in spans) for at, _ in spans)
    assert most <= limit
    assert most > 1 or limit == 1
    batch.wait(10)
