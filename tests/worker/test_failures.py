"""A failed item is its own affair: typed, seen in Flower, and nobody else's."""

from typing import Any

import pytest

from batchord.ledger.core.message_ids import gather_task_id, task_id
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.flower_server import Flower
from tests.support.harness import Deployment, wait_until

pytestmark = pytest.mark.timeout(60)

#: index -> (asked for, code, step, HTTP status, retryable)
FAILURES = {
    3: ("later", "rate_limited", "may_fail", 429, True),
    14: ("chain", "refusal", "may_fail", None, False),
    15: ("bug", "KeyError", "may_fail", None, False),
    50: ("chain", "refusal", "may_fail", None, False),
    51: ("later", "rate_limited", "may_fail", 429, True),
    98: ("chain", "refusal", "may_fail", None, False),
    99: ("bug", "KeyError", "may_fail", None, False),
}


@pytest.fixture(scope="module")
def watched(deploy_for_module: Deploy) -> Deployment:
    """A deployment with one worker, and a Flower that sees all that happens from the start."""
    return deploy_for_module(shard_size=30, task_events=True)


@pytest.fixture(scope="module")
def flower(watched: Deployment) -> Flower:
    flower = Flower(watched)
    watched.wait_for_worker(watched.start_worker(wait=False))
    flower.wait()
    return flower


@pytest.fixture(scope="module")
def seven_of_a_hundred(watched: Deployment, flower: Flower) -> Batch:
    inputs: list[dict[str, Any]] = [{"value": i} for i in range(100)]
    for index, (fail, *_) in FAILURES.items():
        inputs[index]["fail"] = fail
    batch = watched.client.submit("may-fail", inputs)
    batch.wait(20)
    return batch


def test_the_other_items_are_untouched(seven_of_a_hundred: Batch) -> None:
    record = seven_of_a_hundred.record()
    assert record.status is BatchStatus.COMPLETED
    assert record.request_counts.failed == 7
    fine = [item for item in seven_of_a_hundred.results() if item.index not in FAILURES]
    assert len(fine) == 93
    assert all(item.status is ItemStatus.SUCCEEDED for item in fine)
    assert all(item.output == item.index and item.error is None for item in fine)


def test_every_failed_item_says_what_went_wrong_and_where(seven_of_a_hundred: Batch) -> None:
    for index, (_, code, step, http_status, retryable) in FAILURES.items():
        [item] = seven_of_a_hundred.items(index, index + 1)
        assert item.status is ItemStatus.FAILED
        assert item.output is None
        assert item.error is not None
        found = (item.error.code, item.error.step, item.error.http_status, item.error.retryable)
        assert found == (code, step, http_status, retryable)
        assert item.error.message
        assert item.error.attempts == item.attempts == 1
        assert item.settled_at is not None
        assert item.duration is not None


def test_flower_shows_just_the_failed_items_as_failed(
    seven_of_a_hundred: Batch, flower: Flower
) -> None:
    search = f"kwargs:batch_id={seven_of_a_hundred.id}"
    wait_until(
        lambda: len(flower.tasks(search=search, taskname="batchord.run_items")) == 100,
        what="Flower knows all items of the batch",
    )
    wait_until(
        lambda: not flower.tasks(search=search, state="STARTED"), what="Flower saw all of them end"
    )
    failed = flower.tasks(search=search, state="FAILURE")
    assert set(failed) == {
        task_id(seven_of_a_hundred.id, range(index, index + 1)) for index in FAILURES
    }
    assert len(flower.tasks(search=search, state="SUCCESS")) == 93 + 4  # items and gathers
    for index, (_, code, *_) in FAILURES.items():
        found = failed[task_id(seven_of_a_hundred.id, range(index, index + 1))]
        assert code in found["exception"]


def test_every_gather_succeeds_all_the_same(
    watched: Deployment, seven_of_a_hundred: Batch, flower: Flower
) -> None:
    gathers = {gather_task_id(seven_of_a_hundred.id, shard) for shard in range(4)}

    def ended() -> bool:
        tasks = flower.tasks(taskname="batchord.gather", state="SUCCESS")
        return gathers <= set(tasks)

    wait_until(ended, what="Flower shows four gathers as SUCCESS")
    _, worker = watched.processes
    assert "sent again" not in worker.log, "the chords did it, and not the sweep"


def test_a_task_of_which_some_items_failed_shows_how_many_and_why(
    watched: Deployment, flower: Flower
) -> None:
    fails = ["bug", None, "chain", "bug", None, None, None, None, None, None]
    inputs = [{"value": i, "fail": fail} for i, fail in enumerate(fails)]
    batch = watched.client.submit("may-fail", inputs, items_per_task=5)
    assert batch.wait(20).request_counts.failed == 3
    search = f"kwargs:batch_id={batch.id}"
    wait_until(
        lambda: len(flower.tasks(search=search, state="SUCCESS")) == 2,  # a task and the gather
        what="Flower saw the good task and the gather end",
    )
    [(name, failed)] = flower.tasks(search=search, state="FAILURE").items()
    assert name == task_id(batch.id, range(5))
    assert "3 of 5 items failed: KeyError x2, refusal x1" in failed["exception"]


def test_flower_lets_nobody_in_without_the_password(flower: Flower) -> None:
    for path in ("/", "/tasks", "/api/tasks"):
        assert flower.status(path, login=None) == 401
        assert flower.status(path, login="watcher:wrong") == 401


def test_an_error_names_the_branch_that_it_comes_from(shared: Deployment) -> None:
    batch = shared.client.submit("two-steps", [{"value": 1, "fail": "bug"}, {"value": 2}])
    failed, fine = batch.results()
    assert failed.error is not None
    assert failed.error.step == "left.may_fail"
    assert fine.output == {"left": 2, "right": {"value": 2}}


def test_a_batch_of_which_every_item_fails_completes(shared: Deployment) -> None:
    batch = shared.client.submit("may-fail", [{"value": i, "fail": "bug"} for i in range(250)])
    record = batch.wait(20)
    assert record.status is BatchStatus.COMPLETED
    assert record.request_counts.failed == 250
