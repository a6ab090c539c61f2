"""Whatever a chain does, its own item ends with a typed error and the worker lives on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchord.ledger.models import Item, ItemStatus
from tests.conftest import Deploy
from tests.support.harness import Deployment, Process, wait_until

pytestmark = pytest.mark.timeout(60)

OUTPUTS = {
    "nan": "output_not_json",
    "infinity": "output_not_json",
    "object": "output_not_json",
    "bytes": "output_not_json",
    "iterator": "output_not_json",
    "int_keys": "output_not_json",
    "surrogate": "output_not_json",
    "surrogate_key": "output_not_json",
    "huge_int": "output_not_json",
    "loop": "output_too_deep",
    "deep_101": "output_too_deep",
    "deep_5000": "output_too_deep",
    "large": "output_too_large",
    "unreadable": "LookupError",
}
ERRORS = {
    "SystemExit": "SystemExit",
    "KeyboardInterrupt": "KeyboardInterrupt",
    "GeneratorExit": "GeneratorExit",
    "CancelledError": "CancelledError",
    "StopIteration": "RuntimeError",
    "Unprintable": "Unprintable",
    "RecursionError": "RecursionError",
    "ExceptionGroup": "ExceptionGroup",
    "surrogate": "ValueError",
    "long": "ValueError",
}


@pytest.fixture(scope="module", params=["asyncio", "prefork"])
def hosts(deploy_for_module: Deploy, request: pytest.FixtureRequest) -> Deployment:
    """A deployment with a single worker, so that who harms it harms all; in each pool."""
    deployment = deploy_for_module(sweep_interval=0.5)
    deployment.start_worker(concurrency=4, pool=request.param)
    return deployment


@pytest.fixture
def worker(hosts: Deployment) -> Iterator[Process]:
    """The one worker, which must be alive after the test and still take items."""
    [worker] = hosts.processes
    yield worker
    assert worker.alive
    assert hosts.client.submit("echo", ["still there"]).outputs() == ["still there"]
    assert worker.log.count(" ready.") == 1


def outcomes(hosts: Deployment, chain: str, inputs: list[Any]) -> list[Item]:
    """Run the inputs, and return their items once the batch is committed."""
    batch = hosts.client.submit(chain, inputs)
    batch.wait(30)
    return list(batch.results())


def check(items: list[Item], codes: list[str]) -> None:
    """Each odd item is fine, each even one failed with its code."""
    assert [item.error and item.error.code for item in items[::2]] == codes
    for item in items[::2]:
        assert item.status is ItemStatus.FAILED
        assert item.output is None
        assert item.error is not None
        assert 0 < len(item.error.message) <= 2000
        assert item.attempts == 1
    assert {item.output for item in items[1::2]} == {"fine"}


def test_a_bad_output_is_its_items_error(hosts: Deployment, worker: Process) -> None:
    inputs = [part for kind in OUTPUTS for part in (kind, "fine")]
    check(outcomes(hosts, "hostile-output", inputs), list(OUTPUTS.values()))


def test_an_output_of_just_the_allowed_depth_is_recorded(
    hosts: Deployment, worker: Process
) -> None:
    [item] = outcomes(hosts, "hostile-output", ["deep_100"])
    depth, value = 0, item.output
    while value != "bottom":
        depth, [value] = depth + 1, value
    assert depth == 100


def test_an_error_that_no_chain_should_raise_is_its_items_error(
    hosts: Deployment, worker: Process
) -> None:
    inputs = [part for kind in ERRORS for part in (kind, "fine")]
    check(outcomes(hosts, "hostile-error", inputs), list(ERRORS.values()))


def test_a_sync_step_that_ends_the_interpreter_ends_only_its_item(
    hosts: Deployment, worker: Process
) -> None:
    kinds = ["SystemExit", "KeyboardInterrupt"]
    inputs = [part for kind in kinds for part in (kind, "fine")]
    check(outcomes(hosts, "hostile-error-in-thread", inputs), kinds)


@pytest.mark.parametrize("chain", ["overrun", "overrun-in-thread"])
def test_an_item_past_its_deadline_fails_and_frees_its_slot(
    hosts: Deployment, worker: Process, chain: str
) -> None:
    # Not as many as the worker has threads: the one of a sync step cannot be taken from it.
    late = [{"value": i, "seconds": 2.5} for i in range(3)]
    batch = hosts.client.submit(chain, [*late, {"value": "fine", "seconds": 0}])
    *failed, fine = batch.results()
    assert fine.output == "fine"
    for item in failed:
        assert item.error is not None
        assert item.error.code == "timeout"
        assert "0.4 s" in item.error.message
        assert item.error.retryable
        assert item.duration is not None
        assert item.duration < 2


def test_a_blocking_step_does_not_block_its_neighbours(hosts: Deployment, worker: Process) -> None:
    blocking = hosts.client.submit("block", [{"value": i, "seconds": 1.5} for i in range(2)])
    quick = hosts.client.submit("nap", [{"value": i, "seconds": 0.01} for i in range(20)])
    assert quick.outputs() == list(range(20))
    assert not blocking.record().status.ended
    assert blocking.outputs() == [0, 1]


def test_a_pickle_in_the_queue_is_refused_and_nothing_of_it_runs(
    hosts: Deployment, worker: Process, tmp_path: Path
) -> None:
    from celery import Celery

    evidence = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (evidence,)

    attacker = Celery("attacker", broker=hosts.url)
    attacker.conf.task_default_queue = hosts.settings.queue
    with attacker.producer_pool.acquire() as producer:
        attacker.send_task(
            "batchord.run_items",
            kwargs={"batch_id": "batch_" + "0" * 24, "shard": 0, "index": Bomb()},
            serializer="pickle",
            producer=producer,
        )
    attacker.close()
    wait_until(lambda: "ContentDisallowed" in worker.log, what="the worker refused the message")
    assert not evidence.exists()


def test_messages_that_no_batch_knows_are_dropped(hosts: Deployment, worker: Process) -> None:
    from batchord.ledger.broker.celery_app import create_app

    app = create_app(hosts.settings)
    for batch_id in ("batch_" + "0" * 24, "x", "batch_{}"):
        app.send_task("batchord.run_items", kwargs={"batch_id": batch_id, "shard": 0, "index": 0})
        app.send_task("batchord.gather", kwargs={"batch_id": batch_id, "shard": 0})
    app.close()
    wait_until(lambda: hosts.queued() == 0, what="the worker took them")
    assert hosts.client.submit("echo", [1]).outputs() == [1]
    assert not hosts.keys_of("batch_" + "0" * 24)
