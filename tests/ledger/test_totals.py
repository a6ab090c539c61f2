"""Totals of batches by chain: counters, which miss nothing and never fall."""

import threading
import time

import pytest

from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.ledger.storage.chain_totals import ChainTotals, totals
from tests.support.harness import Deployment, wait_until


def half_failing(count: int) -> list[dict[str, object]]:
    return [{"value": n, "fail": "bug" if n % 2 else None} for n in range(count)]


def look(deployment: Deployment) -> dict[str, ChainTotals]:
    client = deployment.client
    return totals(client._store, client._reader.active())


@pytest.fixture
def deployment(deployment: Deployment) -> Deployment:
    deployment.start_worker()
    return deployment


def test_live_batches_and_ended_ones_are_counted_once(deployment: Deployment) -> None:
    ended = deployment.client.submit("may-fail", half_failing(20))
    ended.wait(60)
    gate = deployment.folder / "gate"
    first = {"path": str(deployment.folder / "begun"), "gate": str(gate), "value": 0}
    live = deployment.client.submit("gated", [first] * 3)
    cancelled = deployment.client.submit("gated", [first] * 5)
    cancelled.cancel()
    gate.touch()
    live.wait(60)
    cancelled.wait(60)
    found = look(deployment)
    assert found["may-fail"].batches == {BatchStatus.COMPLETED: 1}
    assert found["may-fail"].outcomes[ItemStatus.SUCCEEDED] == 10
    assert found["may-fail"].outcomes[ItemStatus.FAILED] == 10
    counts = cancelled.record().request_counts
    assert found["gated"].outcomes[ItemStatus.CANCELLED] == counts.cancelled
    assert found["gated"].outcomes[ItemStatus.SUCCEEDED] == 3 + counts.succeeded
    assert found["gated"].batches == {BatchStatus.COMPLETED: 1, BatchStatus.CANCELLED: 1}
    for batch in (ended, live, cancelled):
        deployment.client.purge(batch.id)
    assert look(deployment) == found


def test_a_chain_without_batches_counts_zero(deployment: Deployment) -> None:
    found = look(deployment)["may-fail"]
    assert found.batches == {}
    assert set(found.outcomes.values()) == {0}


def test_what_is_retried_has_another_outcome(deployment: Deployment) -> None:
    batch = deployment.client.submit("may-fail", half_failing(20))
    for turn in (1, 2, 3):
        batch.wait(60)
        found = look(deployment)["may-fail"]
        assert found.outcomes[ItemStatus.SUCCEEDED] == 10
        assert found.outcomes[ItemStatus.FAILED] == 10 * turn
        assert found.retried == 10 * (turn - 1)
        assert found.batches == {BatchStatus.COMPLETED: turn}
        if turn < 3:
            assert batch.retry_failed() == 10


def test_no_look_is_below_the_one_before(deployment: Deployment) -> None:
    """However batches begin, end and are retried between two looks."""
    over = threading.Event()
    seen: list[int] = []

    def watch() -> None:
        while not over.is_set():
            seen.append(sum(look(deployment)["may-fail"].outcomes.values()))
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        batches = [deployment.client.submit("may-fail", half_failing(6)) for _ in range(20)]
        for batch in batches:
            batch.wait(60)
        for batch in batches[:10]:
            assert batch.retry_failed() == 3
        for batch in batches[:10]:
            batch.wait(60)
            deployment.client.purge(batch.id)
        wait_until(lambda: seen[-1] == 20 * 6 + 10 * 3, what="all outcomes are counted")
    finally:
        over.set()
        watcher.join()
    assert len(seen) > 20
    assert seen == sorted(seen)
