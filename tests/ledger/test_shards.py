"""A batch travels as real chords, shard by shard, and is committed once."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import group

from batchord.chains import register
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.broker.publisher import gather, queue_of
from batchord.ledger.core.message_ids import (
    GATHER,
    RUN_ITEMS,
    gather_task_id,
    shard_group_id,
    task_id,
)
from batchord.ledger.core.sharding import Shard
from batchord.ledger.models import BatchStatus
from batchord.ledger.needs import FORMAT
from tests.conftest import Deploy
from tests.support.harness import Deployment, lines_of, wait_until

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(autouse=True)
def _chains() -> None:
    for name in ("echo", "gated", "timed"):
        register(name, _same, replace=True)


def _same(value: Any) -> Any:
    return value


def messages(deployment: Deployment) -> Iterator[dict[str, Any]]:
    """The messages in the queues, by the items that they carry."""
    return iter(sorted(map(json.loads, deployment.waiting()), key=_place))


def _place(message: dict[str, Any]) -> int:
    _, kwargs, _ = body_of(message)
    return int(kwargs["index"])


def body_of(message: dict[str, Any]) -> Any:
    """Arguments, named arguments and the embedded rest of a message."""
    return json.loads(base64.b64decode(message["body"]))


def test_a_shard_is_published_as_a_celery_chord_of_one_task_an_item(deploy: Deploy) -> None:
    deployment = deploy(shard_size=4, shards_in_flight=2)
    batch = deployment.client.submit("echo", range(10))
    headers = [message["headers"] for message in messages(deployment)]
    assert [header["task"] for header in headers] == [RUN_ITEMS] * 8
    items = [range(i, i + 1) for i in range(8)]
    assert [header["id"] for header in headers] == [task_id(batch.id, one) for one in items]
    groups = [header["group"] for header in headers]
    assert groups == [shard_group_id(batch.id, i // 4) for i in range(8)]


def test_what_is_published_is_what_a_group_with_a_chord_publishes(deployment: Deployment) -> None:
    """`publish_tasks` sends task by task what Celery's canvas would send."""
    batch = deployment.client.submit("echo", range(3))
    ours = list(messages(deployment))
    deployment.lose_messages()
    app = create_app(deployment.settings)
    shard = Shard(0, 0, 3, 1)
    header = group(
        [
            app.signature(
                RUN_ITEMS,
                kwargs={"batch_id": batch.id, "shard": 0, "index": i, "count": 1},
                immutable=True,
                task_id=task_id(batch.id, range(i, i + 1)),
                queue=queue_of(deployment.settings, 0, 0),
                priority=5,
                ignore_result=True,
            )
            for i in range(3)
        ],
        app=app,
        task_id=shard_group_id(batch.id, 0),
    )
    header.apply_async(chord=gather(app, batch.id, shard.number, batch.record().needs))
    theirs = list(messages(deployment))
    app.close()
    assert len(ours) == len(theirs) == 3
    for mine, celerys in zip(ours, theirs, strict=True):
        assert body_of(mine) == body_of(celerys)
        for unlike in ("delivery_tag", "reply_to"):  # nobody replies: results are in the ledger
            mine["properties"].pop(unlike), celerys["properties"].pop(unlike)
        assert mine["properties"] == celerys["properties"]
        assert mine["headers"] == {
            **celerys["headers"],
            "slots": 1,
            "batchord": {"format": FORMAT, "chain": "echo", "version": None},
        }


def test_one_gather_closes_each_shard(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(shard_size=6, shards_in_flight=1, lease=30, sweep_interval=60)
    paths = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    batch = deployment.client.submit("gated", [{"value": i, **paths} for i in range(15)])
    worker = deployment.start_worker(concurrency=6)
    wait_until(lambda: len(lines_of(tmp_path / "starts")) == 6, what="the first shard runs")
    (tmp_path / "gate").touch()
    assert batch.wait(20).status is BatchStatus.COMPLETED
    for shard in range(3):
        name = f"{GATHER}[{gather_task_id(batch.id, shard)}]"
        wait_until(lambda: f"{name} succeeded" in worker.log, what="the gather ends")  # noqa: B023
        assert worker.log.count(f"{name} received") == 1
    assert worker.log.count("batch committed") == 1
    assert "sent again" not in worker.log, "the chord did it, and not the sweep"


def test_the_queue_stays_as_short_as_the_window_of_shards(deploy: Deploy) -> None:
    deployment = deploy(shard_size=100, shards_in_flight=6)
    batch = deployment.client.submit("echo", range(2500), items_per_task=1)
    assert deployment.queued() == 400, "the window opens as shards close"
    workers = [deployment.start_worker(wait=False, concurrency=16) for _ in range(2)]
    longest = 0

    def ended() -> bool:
        nonlocal longest
        longest = max(longest, deployment.queued())
        return batch.record().status.ended

    wait_until(ended, what="the batch has ended", timeout=60)
    # A gather is in the queue while its shard is still in flight.
    assert 400 <= longest <= 600 + 6
    assert batch.outputs() == list(range(2500))

    def logged(words: str) -> int:
        return sum(worker.log.count(words) for worker in workers)

    wait_until(lambda: logged("batch committed"), what="the log tells of the end")
    assert logged("batch committed") == 1
    assert logged("shard closed") == 25


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


def gated(tmp_path: Path, count: int) -> list[dict[str, Any]]:
    paths = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    return [{"value": i, **paths} for i in range(count)]


def check_that_so_many_run(deployment: Deployment, tmp_path: Path, limit: int) -> None:
    """Exactly `limit` items run while none ends; then all end."""
    batch = deployment.client.submit(
        "gated", gated(tmp_path, 3 * limit), max_concurrency=limit, items_per_task=1
    )
    starts = tmp_path / "starts"
    wait_until(lambda: len(lines_of(starts)) >= limit, what=f"{limit} items run")
    time.sleep(0.3)
    assert len(lines_of(starts)) == batch.record().running == limit
    (tmp_path / "gate").touch()
    assert batch.wait(30).request_counts.succeeded == 3 * limit


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13])
def test_max_concurrency_is_how_many_items_run_across_workers(
    shared: Deployment, tmp_path: Path, limit: int
) -> None:
    check_that_so_many_run(shared, tmp_path, limit)


def test_a_large_max_concurrency_is_how_many_items_run(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy()
    register("gated", lambda value: value, replace=True)
    deployment.start_worker(concurrency=110)
    check_that_so_many_run(deployment, tmp_path, 100)


def test_max_concurrency_is_never_exceeded(shared: Deployment, tmp_path: Path) -> None:
    path, limit = tmp_path / "times", 5
    inputs = [{"value": i, "seconds": 0.03, "path": str(path)} for i in range(30)]
    batch = shared.client.submit("timed", inputs, max_concurrency=limit)
    assert batch.outputs() == list(range(30))
    spans = [tuple(map(float, line.split())) for line in lines_of(path)]
    assert 1 < max(sum(start <= at < end for start, end in spans) for at, _ in spans) <= limit
    batch.wait(10)
