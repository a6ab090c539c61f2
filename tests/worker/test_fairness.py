"""Small batches need not wait for big ones, and what is urgent goes first."""

from pathlib import Path
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.settings import LANES
from tests.conftest import Deploy
from tests.support.harness import Deployment, lines_of, wait_until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _chains() -> None:
    for name in ("journal", "nap"):
        register(name, _same, replace=True)


def _same(value: Any) -> Any:
    return value


def test_a_small_batch_goes_between_the_items_of_a_big_one(deploy: Deploy) -> None:
    deployment = deploy(shard_size=50)
    deployment.start_worker(concurrency=4)
    big = deployment.client.submit("nap", [{"value": i, "seconds": 0.01} for i in range(2000)])
    # Its later shards are what waits now: the first has a queue of its own.
    wait_until(lambda: big.record().request_counts.done > 80, what="the big one is on its way")
    before = big.record().request_counts.done
    small = deployment.client.submit("nap", [{"value": i, "seconds": 0.01} for i in range(10)])
    small.wait(20)
    meanwhile = big.record().request_counts.done - before
    assert deployment.queued() > 100, "the big one's window is still waiting"
    # By turns: as many as the small one has, and what was on its way in both directions.
    assert meanwhile < 80
    assert not big.record().status.ended
    big.cancel()
    big.wait(30)


def test_a_batch_that_may_have_few_in_flight_has_them_beside_a_big_one(deploy: Deploy) -> None:
    deployment = deploy(shard_size=100)
    deployment.start_worker(concurrency=4)
    big = deployment.client.submit("nap", [{"value": i, "seconds": 0.01} for i in range(4000)])
    wait_until(lambda: deployment.queued() > 300, what="the big one's window waits")
    before = big.record().request_counts.done
    inputs = [{"value": i, "seconds": 0.01} for i in range(20)]
    small = deployment.client.submit("nap", inputs, max_concurrency=2)
    small.wait(30)
    # It has two in the queue at a time. Behind the big one's hundreds, they would come ten times.
    assert big.record().request_counts.done - before < 600
    assert not big.record().status.ended
    big.cancel()
    big.wait(30)


def test_batches_side_by_side_have_lanes_of_their_own(deployment: Deployment) -> None:
    store = deployment.client._store
    batches = [deployment.client.submit("journal", [{"value": 0}]) for _ in range(2 * LANES)]
    lanes = [store.route(batch.id)[1] for batch in batches]
    assert lanes == [*range(LANES), *range(LANES)]
    deployment.start_worker()
    for batch in batches:
        batch.wait(30)
    # Nobody is in it any more.
    last = deployment.client.submit("journal", [{"value": 0}])
    assert store.route(last.id)[1] == 0


def test_what_is_urgent_goes_first_and_what_can_wait_goes_last(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy()
    path = tmp_path / "order"
    for priority in (9, 5, 0):
        inputs = [{"value": priority, "path": str(path)} for _ in range(5)]
        deployment.client.submit("journal", inputs, priority=priority)
    deployment.start_worker(concurrency=1)
    wait_until(lambda: len(lines_of(path)) == 15, what="all items ran")
    assert lines_of(path) == ["0"] * 5 + ["5"] * 5 + ["9"] * 5
    wait_until(lambda: not deployment.client._reader.active(), what="all are committed")
