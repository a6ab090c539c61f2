"""Small batches need not wait for big ones, and what is urgent goes first."""

from pathlib import Path
from typing import Any

import pytest

from chains import register
from tests.conftest import Deploy
from tests.harness import lines_of, wait_until

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
    wait_until(lambda: big.request_counts.done > 80, what="the big one is on its way")
    before = big.request_counts.done
    small = deployment.client.submit("nap", [{"value": i, "seconds": 0.01} for i in range(10)])
    small.wait(20)
    meanwhile = big.request_counts.done - before
    assert deployment.queued() > 100, "the big one's window is still waiting"
    # By turns: as many as the small one has, and what was on its way in both directions.
    assert meanwhile < 80
    assert not big.status.ended
    big.cancel()
    big.wait(30)


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
