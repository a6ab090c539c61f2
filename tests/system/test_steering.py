"""A batch can be paused, resumed, cancelled, and given a completion window."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.errors import RetryRefused, UnknownBatch
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.producer import Batch
from batchord.producer.completion_window import window_seconds
from tests.conftest import Deploy
from tests.support.harness import Deployment, lines_of, refused, wait_until

pytestmark = pytest.mark.timeout(60)

QUICK = {"lease": 2.0, "sweep_interval": 0.2}


@pytest.fixture
def quick(deploy: Deploy) -> Deployment:
    for name in ("gated", "nap", "timed", "echo", "block"):
        register(name, _same, replace=True)
    return deploy(**QUICK)


def _same(value: Any) -> Any:
    return value


def gated(tmp_path: Path, count: int) -> list[dict[str, Any]]:
    paths = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    return [{"value": i, **paths} for i in range(count)]


def starts(tmp_path: Path) -> int:
    return len(lines_of(tmp_path / "starts"))


def statuses(batch: Batch) -> dict[ItemStatus, int]:
    found = [item.status for item in batch.results()]
    return {status: found.count(status) for status in found}


@pytest.mark.parametrize("size", [1, 5])
def test_a_paused_batch_starts_nothing_and_goes_on_where_it_was(
    quick: Deployment, tmp_path: Path, size: int
) -> None:
    quick.start_worker(concurrency=2)
    batch = quick.client.submit("gated", gated(tmp_path, 20), items_per_task=size)
    wait_until(lambda: starts(tmp_path) == 2, what="two items run")
    assert batch.pause() is BatchStatus.PAUSED
    (tmp_path / "gate").touch()
    wait_until(lambda: batch.record().request_counts.done == 2, what="what ran ends")
    wait_until(lambda: quick.queued() == 0, what="the messages come to nothing")
    assert starts(tmp_path) == 2
    assert batch.record().status is BatchStatus.PAUSED
    assert batch.resume() is BatchStatus.IN_PROGRESS
    record = batch.wait(20)
    assert (record.status, record.request_counts.succeeded) == (BatchStatus.COMPLETED, 20)
    assert starts(tmp_path) == 20, "nothing ran twice"


def _nothing(batch: Batch) -> None:
    pass


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ({}, _nothing),
        ({"completion_window": timedelta(seconds=60)}, _nothing),
        ({"dedupe": True}, _nothing),
        ({}, lambda batch: batch.cancel()),
    ],
    ids=["plain", "window", "dedupe", "cancelled after it"],
)
def test_a_paused_batch_with_nothing_left_to_do_ends_by_itself(
    quick: Deployment, tmp_path: Path, options: dict[str, Any], after: Callable[[Batch], object]
) -> None:
    quick.start_worker(concurrency=4)
    batch = quick.client.submit("gated", gated(tmp_path, 3), **options)
    wait_until(lambda: starts(tmp_path) == 3, what="all items run")
    assert batch.pause() is BatchStatus.PAUSED
    (tmp_path / "gate").touch()
    record = batch.wait(10)
    after(batch)
    assert (record.status, record.request_counts.succeeded) == (BatchStatus.COMPLETED, 3)
    assert batch.pause() is batch.record().status is BatchStatus.COMPLETED


def test_a_pause_outlives_its_workers(quick: Deployment, tmp_path: Path) -> None:
    first = quick.start_worker(concurrency=2)
    batch = quick.client.submit("gated", gated(tmp_path, 6))
    wait_until(lambda: starts(tmp_path) == 2, what="two items run")
    batch.pause()
    first.kill()
    (tmp_path / "gate").touch()
    quick.start_worker(concurrency=2)
    time.sleep(2.5)  # beyond the lease of what the killed worker held
    assert starts(tmp_path) == 2
    batch.resume()
    assert batch.wait(20).request_counts.succeeded == 6


@pytest.mark.parametrize("size", [1, 50])
def test_a_cancelled_batch_ends_with_what_is_done(
    quick: Deployment, tmp_path: Path, size: int
) -> None:
    quick.start_worker(concurrency=4)
    done = quick.client.submit("nap", [{"value": i, "seconds": 0.0} for i in range(2)])
    done.wait(10)
    # The first is begun first; of the others, those of two shards come by turns.
    inputs = [{"value": i, "seconds": 0.0 if i == 0 else 60.0} for i in range(1500)]
    batch = quick.client.submit("nap", inputs, items_per_task=size)
    wait_until(lambda: batch.record().request_counts.done == 1, what="an item is done")
    wait_until(lambda: batch.record().running == 4, what="four items run")
    began = time.monotonic()
    assert batch.cancel() is BatchStatus.CANCELLING
    record = batch.wait(10)
    assert time.monotonic() - began < 5
    assert record.status is BatchStatus.CANCELLED
    assert record.cancelling_at is not None
    counts = record.request_counts
    assert (counts.succeeded, counts.cancelled, counts.total) == (1, 1499, 1500)
    assert statuses(batch) == {ItemStatus.SUCCEEDED: 1, ItemStatus.CANCELLED: 1499}
    assert sorted(item.index for item in batch.as_completed()) == list(range(1500))
    attempts = [item.attempts for item in batch.results()]
    assert sorted(attempts) == [0] * 1495 + [1] * 5, "what ran was stopped, the rest not begun"
    assert done.cancel() is BatchStatus.COMPLETED, "what has ended stays as it is"


def test_a_batch_is_cancelled_without_any_worker(quick: Deployment) -> None:
    batch = quick.client.submit("echo", range(2500))
    assert batch.cancel() is BatchStatus.CANCELLED
    assert batch.record().request_counts.cancelled == 2500
    assert batch.cancel() is BatchStatus.CANCELLED
    quick.start_worker()
    wait_until(lambda: quick.queued() == 0, what="its messages come to nothing")
    assert batch.record().request_counts.cancelled == 2500


def test_a_paused_batch_can_be_cancelled(quick: Deployment, tmp_path: Path) -> None:
    batch = quick.client.submit("gated", gated(tmp_path, 3))
    batch.pause()
    assert batch.cancel() is BatchStatus.CANCELLED
    assert batch.resume() is BatchStatus.CANCELLED


def test_a_batch_whose_worker_dies_while_it_is_cancelled_ends(
    quick: Deployment, tmp_path: Path
) -> None:
    worker = quick.start_worker(concurrency=2)
    batch = quick.client.submit("block", [{"value": i, "seconds": 60} for i in range(6)])
    wait_until(lambda: batch.record().running == 2, what="two items run")
    worker.kill()
    batch.cancel()
    quick.start_worker()
    assert batch.wait(15).request_counts.cancelled == 6


def test_what_is_not_done_within_the_window_expires(quick: Deployment) -> None:
    quick.start_worker(concurrency=4)
    inputs = [{"value": i, "seconds": 0.0 if i < 3 else 60.0} for i in range(1200)]
    batch = quick.client.submit("nap", inputs, completion_window="2s")
    record = batch.record()
    assert record.expires_at is not None
    assert record.in_progress_at is not None
    assert record.expires_at - record.in_progress_at == timedelta(seconds=2)
    record = batch.wait(15)
    assert record.status is BatchStatus.EXPIRED
    assert (record.request_counts.succeeded, record.request_counts.expired) == (3, 1197)
    assert statuses(batch) == {ItemStatus.SUCCEEDED: 3, ItemStatus.EXPIRED: 1197}
    assert [item.output for item in batch.items(0, 3)] == [0, 1, 2]


def test_a_batch_within_its_window_completes(quick: Deployment) -> None:
    quick.start_worker()
    batch = quick.client.submit("echo", range(5), completion_window=timedelta(hours=1))
    assert batch.wait(10).status is BatchStatus.COMPLETED


def test_a_batch_that_nobody_knows_cannot_be_steered(quick: Deployment) -> None:
    batch = quick.client.submit("echo", [1])
    batch.cancel()
    quick.redis.flushdb()
    for step in (batch.pause, batch.resume, batch.cancel):
        with pytest.raises(UnknownBatch):
            step()
    assert quick.redis.keys() == []


@pytest.mark.parametrize(
    ("window", "seconds"),
    [("24h", 86_400), ("90s", 90), ("30m", 1800), ("7d", 604_800), (1.5, 1.5), (3600, 3600)],
)
def test_a_window_is_read_as_people_write_it(window: Any, seconds: float) -> None:
    assert window_seconds(window) == seconds


@pytest.mark.parametrize(
    "window", ["", "24", "h", "24 h", "-1h", "1w", 0, 0.5, -1, True, 10**9, "9999d", ["24h"]]
)
def test_a_bad_window_is_refused(quick: Deployment, window: Any) -> None:
    assert "completion_window" in refused(quick, "echo", [1], completion_window=window)
    assert quick.redis.keys() == []


def test_failed_items_run_again_in_place(quick: Deployment, tmp_path: Path) -> None:
    register("mend", _same, replace=True)
    quick.start_worker(concurrency=4)
    mended = tmp_path / "mended"
    inputs = [{"value": i, "until": str(mended) if i % 4 == 0 else None} for i in range(1300)]
    batch = quick.client.submit("mend", inputs, idempotency_key="key")
    assert batch.wait(20).request_counts.failed == 325
    mended.touch()
    assert batch.retry_failed() == 325
    record = batch.wait(20)
    assert record.status is BatchStatus.COMPLETED
    assert (record.request_counts.succeeded, record.request_counts.failed) == (1300, 0)
    assert batch.outputs() == list(range(1300))
    assert sorted(item.index for item in batch.as_completed()) == list(range(1300))
    [earlier] = batch.history(4)
    assert (earlier.status, earlier.attempts) == (ItemStatus.FAILED, 1)
    assert earlier.error is not None
    assert earlier.error.code == "ValueError"
    assert batch.history(5) == []
    assert batch.retry_failed() == 0
    wait_until(lambda: -1 not in map(quick.redis.ttl, quick.keys_of(batch)), what="keys end again")
    key = next(quick.redis.scan_iter("batchord:key:*"))
    assert quick.redis.ttl(key) > 0


def test_only_items_with_these_codes_run_again(quick: Deployment, tmp_path: Path) -> None:
    register("may-fail", _same, replace=True)
    quick.start_worker()
    fails = [None, "bug", "chain", "bug", "later"]
    inputs = [{"value": {"status": "failed"}, "fail": fail} for fail in fails]
    batch = quick.client.submit("may-fail", inputs)
    batch.wait(10)
    assert batch.retry_failed(["KeyError", "rate_limited"]) == 3
    batch.wait(10)
    assert [len(batch.history(i)) for i in range(5)] == [0, 1, 0, 1, 1]
    assert batch.record().request_counts.failed == 4, "they failed again"
    assert batch.retry_failed(["no-such-code"]) == 0
    assert batch.record().status is BatchStatus.COMPLETED
    assert batch.retry_failed(["KeyError"]) == 2
    batch.wait(10)
    assert [len(batch.history(i)) for i in range(5)] == [0, 2, 0, 2, 1]


def test_only_a_completed_batch_is_retried(quick: Deployment) -> None:
    batch = quick.client.submit("echo", range(3))
    with pytest.raises(RetryRefused, match="in_progress"):
        batch.retry_failed()
    batch.cancel()
    with pytest.raises(RetryRefused, match="cancelled"):
        batch.retry_failed()


def test_a_retry_that_died_half_way_ends_all_the_same(quick: Deployment, tmp_path: Path) -> None:
    register("mend", _same, replace=True)
    worker = quick.start_worker()
    mended = tmp_path / "mended"
    batch = quick.client.submit("mend", [{"value": i, "until": str(mended)} for i in range(5)])
    batch.wait(10)
    worker.kill()
    store = BatchStore(quick.settings)
    assert store.reopen(batch.id, total=5, key=None)
    store.redis.hset(store.keys.batch(batch.id).meta, "retrying_until", 1)  # long ago
    store.close()
    quick.start_worker()
    assert batch.wait(10).request_counts.failed == 5
