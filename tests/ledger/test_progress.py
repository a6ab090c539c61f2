"""A batch's statistics: what `progress` says, in O(1), while it runs and afterwards."""

import asyncio
from datetime import timedelta

import pytest

from batchord.chains.errors import BatchordError
from batchord.ledger.errors import UnknownBatch
from batchord.ledger.models import BatchStatus
from batchord.ledger.storage.batch_stats import progress_of
from tests.support.harness import Deployment, wait_until


def half_failing(count: int) -> list[dict[str, object]]:
    """Inputs of `may-fail`, of which every second one fails."""
    return [{"value": n, "fail": "bug" if n % 2 else None} for n in range(count)]


def test_a_batch_that_has_ended_says_how_it_went(shared: Deployment) -> None:
    batch = shared.client.submit("may-fail", half_failing(60))
    record = batch.wait(60)
    progress = batch.progress()
    assert (progress.id, progress.status) == (batch.id, BatchStatus.COMPLETED)
    assert progress.request_counts == record.request_counts
    assert (progress.rate, progress.eta, progress.running) == (None, None, 0)
    [group] = progress.failures
    assert group.count == record.request_counts.failed == 30
    assert len(group.first) == 5
    assert all(index % 2 for index in group.first)
    assert sum(slot.succeeded for slot in progress.throughput) == 30
    assert sum(slot.failed for slot in progress.throughput) == 30
    assert progress.latency_p50 is not None
    assert progress.latency_p95 is not None
    assert 0 < progress.latency_p50 <= progress.latency_p95 < 60
    assert asyncio.run(batch.aprogress()) == progress


def test_failed_items_that_run_again_leave_the_failures(shared: Deployment) -> None:
    batch = shared.client.submit("may-fail", half_failing(20))
    batch.wait(60)
    [before] = batch.progress().failures
    assert batch.retry_failed(["no such code"]) == 0
    assert batch.progress().failures == [before]
    assert batch.retry_failed([before.code]) == 10
    batch.wait(60)
    after = batch.progress()
    assert after.retried == 10
    assert [group.count for group in after.failures] == [10]
    assert sum(slot.failed for slot in after.throughput) == 20


def test_a_rate_and_an_eta_are_known_while_a_batch_runs(shared: Deployment) -> None:
    batch = shared.client.submit("nap", [{"seconds": 0.1, "value": 0}] * 600)
    assert batch.progress().latency_p95 is None or batch.record().request_counts.done
    wait_until(lambda: batch.progress().eta is not None, what="an eta")
    progress = batch.progress()
    assert progress.rate is not None
    assert progress.eta is not None
    left = progress.request_counts.total - progress.request_counts.done
    assert progress.eta == pytest.approx(left / progress.rate)
    batch.pause()
    assert batch.progress().rate is None
    batch.cancel()
    batch.wait(60)


def test_the_progress_of_no_batch_is_an_error(deployment: Deployment) -> None:
    with pytest.raises(UnknownBatch) as caught:
        deployment.client._reader.progress("batch_" + "0" * 32)
    assert isinstance(caught.value, BatchordError)
    with pytest.raises(UnknownBatch):
        deployment.client._reader.progress("../meta")


def test_the_statistics_of_a_batch_of_days_stay_small(shared: Deployment) -> None:
    batch = shared.client.submit("may-fail", [{"value": 0, "fail": "bug"}])
    batch.wait(60)
    stats = shared.client._store.keys.batch(batch.id).stats
    # As if this many had ended over the first two minutes; its last item runs again days later.
    shared.redis.hset(stats, mapping={f"succeeded:{n}": n for n in range(120)})
    for days in (1, 2, 30):
        ago = int(timedelta(days=days).total_seconds() * 1000)
        shared.redis.hset(stats, "origin", int(shared.redis.time()[0]) * 1000 - ago)
        assert batch.retry_failed() == 1
        batch.wait(60)
        slots = batch.progress().throughput
        assert 60 <= len(slots) <= 120
        assert shared.redis.hlen(stats) < 300
        assert sum(slot.succeeded for slot in slots) == sum(range(120))
        assert slots[-1].failed == 1
        assert sum(slot.seconds for slot in slots) >= ago / 1000


def test_many_codes_of_errors_are_bounded(shared: Deployment) -> None:
    inputs = [{"value": 0, "fail": f"Error{n}"} for n in range(80)]
    batch = shared.client.submit("may-fail", inputs)
    batch.wait(60)
    failures = batch.progress().failures
    assert len(failures) == 51
    assert failures[0].code == "(other)"
    assert sum(group.count for group in failures) == 80


def test_statistics_of_an_older_version_are_unknown_and_not_zero(shared: Deployment) -> None:
    batch = shared.client.submit("echo", range(5))
    batch.wait(60)
    shared.redis.delete(shared.client._store.keys.batch(batch.id).stats)
    progress = batch.progress()
    assert progress.request_counts.succeeded == 5
    assert (progress.latency_p50, progress.rate, progress.throughput) == (None, None, [])


def test_latencies_lie_within_a_fifth_of_what_was_measured(shared: Deployment) -> None:
    batch = shared.client.submit("echo", range(1))
    record = batch.wait(60)
    # 90 attempts of 100 ms and ten of 10 s; in which bucket they are is settle.lua's arithmetic.
    progress = progress_of(record, {"ms:26": "90", "ms:53": "10"}, 0)
    assert progress.latency_p50 == pytest.approx(0.1, rel=0.2)
    assert progress.latency_p95 == pytest.approx(10, rel=0.2)
