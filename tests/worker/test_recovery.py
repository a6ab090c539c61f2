"""Recovery after crashes: all work is done, and each item has just one outcome."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.core.message_ids import PRIORITY_SEPARATOR
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import ClaimRequest, Settlement
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.harness import Deployment, lines_of, wait_until
from tests.support.judge import problems_of_the_record

pytestmark = pytest.mark.timeout(90)

#: Everything that is waited for comes soon.
QUICK = {"lease": 1.0, "sweep_interval": 0.2, "submit_timeout": 1.0}


@pytest.fixture
def quick(deploy: Deploy) -> Deployment:
    """A deployment whose leases are short and whose workers sweep often."""
    for name in ("gated", "die", "echo"):
        register(name, _same, replace=True)
    return deploy(**QUICK)


def _same(value: Any) -> Any:
    return value


def gated(tmp_path: Path, count: int) -> list[dict[str, Any]]:
    paths = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    return [{"value": i, **paths} for i in range(count)]


def starts(tmp_path: Path) -> list[tuple[int, int]]:
    """Which item was started in which process, in order."""
    pairs = [line.split() for line in lines_of(tmp_path / "starts")]
    return [(int(index), int(pid)) for index, pid in pairs]


def committed_once(deployment: Deployment, batch: Batch, *, timeout: float = 30) -> None:
    """The batch was committed once, and each item's outcome was recorded once."""
    assert batch.wait(timeout).status is BatchStatus.COMPLETED
    assert problems_of_the_record(deployment.redis, batch) == []


def test_the_items_of_a_killed_worker_are_finished_by_another(
    quick: Deployment, tmp_path: Path
) -> None:
    batch = quick.client.submit("gated", gated(tmp_path, 12))
    first = quick.start_worker(concurrency=4)
    wait_until(lambda: len(starts(tmp_path)) == 4, what="four items run")
    first.kill()
    (tmp_path / "gate").touch()
    second = quick.start_worker(concurrency=4)
    committed_once(quick, batch)
    killed = {index for index, pid in starts(tmp_path) if pid == first.pid}
    for item in batch.results():
        assert item.output == second.pid
        assert item.attempts == (2 if item.index in killed else 1)
    assert len(killed) == 4
    assert len(starts(tmp_path)) == 16


def test_a_late_outcome_of_a_frozen_worker_is_refused(quick: Deployment, tmp_path: Path) -> None:
    frozen = quick.start_worker(concurrency=1)
    batch = quick.client.submit("gated", gated(tmp_path, 1))
    wait_until(lambda: starts(tmp_path), what="the item runs")
    os.killpg(frozen.pid, signal.SIGSTOP)
    (tmp_path / "gate").touch()
    other = quick.start_worker(concurrency=1)
    committed_once(quick, batch)
    os.killpg(frozen.pid, signal.SIGCONT)
    wait_until(lambda: "late outcome refused" in frozen.log, what="the frozen one comes too late")
    [item] = batch.results()
    assert (item.output, item.attempts) == (other.pid, 2)
    assert batch.record().request_counts.succeeded == 1
    committed_once(quick, batch)


def test_lost_messages_are_brought_back(quick: Deployment) -> None:
    batch = quick.client.submit("echo", range(30))
    assert quick.queued() == 30
    quick.lose_messages()
    quick.start_worker()
    committed_once(quick, batch)
    assert batch.outputs() == list(range(30))
    assert {item.attempts for item in batch.results()} == {1}


def test_a_single_lost_message_among_many_is_brought_back(quick: Deployment) -> None:
    batch = quick.client.submit("echo", range(30))
    quick.redis.rpop(f"{quick.settings.queues[0]}{PRIORITY_SEPARATOR}3")
    quick.start_worker()
    committed_once(quick, batch)
    assert batch.outputs() == list(range(30))


def test_a_message_that_is_lost_does_not_wait_for_all_others(quick: Deployment) -> None:
    register("nap", _same, replace=True)
    batch = quick.client.submit("nap", [{"value": i, "seconds": 0.2} for i in range(50)])
    lost = quick.redis.rpop(f"{quick.settings.queues[0]}{PRIORITY_SEPARATOR}3")
    assert json.loads(lost)["headers"]["id"] == f"{batch.id}:0"
    worker = quick.start_worker(concurrency=2)
    committed_once(quick, batch)
    assert "shard=0 tasks=1: overtaken" in worker.log
    done = f"batchord:{{{batch.id}}}:done"
    order = [int(index) for index in quick.redis.lrange(done, 0, -1)]
    assert order.index(0) < 35, "it came with the last ones"
    assert {item.attempts for item in batch.results()} == {1}


def test_what_a_dead_worker_had_begun_goes_before_what_waits(
    quick: Deployment, tmp_path: Path
) -> None:
    register("nap", _same, replace=True)
    batch = quick.client.submit("nap", [{"value": i, "seconds": 0.2} for i in range(50)])
    first = quick.start_worker(concurrency=4)
    wait_until(lambda: batch.record().running == 4, what="items run")
    first.kill()
    begun = {item.index for item in batch.items() if item.status is ItemStatus.RUNNING}
    quick.start_worker(concurrency=2)
    committed_once(quick, batch)
    done = f"batchord:{{{batch.id}}}:done"
    order = [int(index) for index in quick.redis.lrange(done, 0, -1)]
    assert len(begun) == 4
    assert max(order.index(index) for index in begun) < 35, "they came with the last ones"


def test_a_lost_gather_is_sent_again(quick: Deployment) -> None:
    batch = quick.client.submit("echo", range(3))
    assert quick.lose_messages() == 1
    settle_by_hand(quick, batch, 3)
    quick.start_worker()
    committed_once(quick, batch)


def settle_by_hand(deployment: Deployment, batch: Batch, count: int) -> None:
    """Claim and settle items as a worker would, without Celery."""
    store = BatchStore(deployment.settings)
    exchange = ItemLeases(store)
    claim_requests = [ClaimRequest(batch_id=batch.id, index=i, token="token") for i in range(count)]
    _, claims = exchange.swap([], claim_requests)
    assert {claim.verdict for claim in claims} == {"run"}
    settlements = [
        Settlement(
            batch_id=batch.id,
            index=i,
            token="token",
            shard=0,
            attempt=1,
            status=ItemStatus.SUCCEEDED,
            outcome='{"status":"succeeded"}',
            output="1",
        )
        for i in range(count)
    ]
    receipts, _ = exchange.swap(settlements, [])
    assert all(receipt.recorded for receipt in receipts)
    assert [receipt.shard_complete for receipt in receipts] == [False] * (count - 1) + [True]
    store.close()


def test_a_sealed_batch_that_was_never_published_is_published(
    quick: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> int:
        raise ConnectionError("gone")

    monkeypatch.setattr("batchord.producer.submission.publish_shards", broken)
    batch = quick.client.submit("echo", range(5))  # accepted: it must not be submitted again
    assert quick.queued() == 0
    quick.start_worker()
    committed_once(quick, batch)
    assert batch.outputs() == list(range(5))


DYING = """
import os
import tests.chains_for_tests.basic
from batchord.producer import Client

def inputs():
    yield from range(2500)
    os._exit(7)

Client().submit("echo", inputs(), custom_ids=map(str, range(2500)), idempotency_key="key")
"""


def test_what_a_dead_producer_left_is_swept_away(quick: Deployment, tmp_path: Path) -> None:
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    assert quick.start_script(script).wait() == 7
    [dead] = quick.redis.zrange("batchord:active", 0, -1)
    assert len(quick.keys_of(dead)) == 6  # meta, custom-ids, and inputs and ids of two pages
    quick.start_worker()
    wait_until(lambda: not quick.keys_of(dead), what="its keys are gone")
    wait_until(lambda: not quick.redis.zcard("batchord:active"), what="it is out of the index")
    assert not quick.redis.exists("batchord:batches")
    wait_until(
        lambda: not list(quick.redis.scan_iter("batchord:key:*")), what="its key is free, last"
    )
    assert quick.client.list() == []


@pytest.fixture(params=[1, 8])
def supervised(quick: Deployment, request: pytest.FixtureRequest) -> Iterator[Callable[[], int]]:
    """Keep one worker running, whatever befalls it; gives how often one was started."""
    stop = threading.Event()
    count = 0

    def supervise() -> None:
        nonlocal count
        while not stop.is_set():
            worker = quick.start_worker(concurrency=request.param, wait=False)
            count += 1
            while worker.alive and not stop.wait(0.05):
                pass

    thread = threading.Thread(target=supervise)
    thread.start()
    yield lambda: count
    stop.set()
    thread.join()


def test_an_item_that_kills_its_process_each_time_ends_as_worker_lost(
    quick: Deployment, supervised: Callable[[], int], tmp_path: Path
) -> None:
    inputs: list[dict[str, Any]] = [{"value": i} for i in range(12)]
    died = str(tmp_path / "died")
    inputs[0] = {"value": 0, "once": died, "die": True}
    poison = (1, 7)
    for index in poison:
        # Not before the first has died, or that one might die on its last start.
        inputs[index] = {"value": index, "after": died, "die": True}
    batch = quick.client.submit("die", inputs)
    committed_once(quick, batch, timeout=60)
    for item in batch.results():
        if item.index in poison:
            assert item.error is not None
            assert (item.error.code, item.error.attempts) == ("worker_lost", 3)
        else:
            # What ran beside it was started again, and is not blamed.
            assert item.output == item.index
    assert supervised() >= 4


def test_a_worker_that_is_told_to_stop_ends_what_it_runs(quick: Deployment, tmp_path: Path) -> None:
    worker = quick.start_worker(concurrency=2, env={"REMAP_SIGTERM": "SIGQUIT"})
    batch = quick.client.submit("gated", gated(tmp_path, 8))
    wait_until(lambda: len(starts(tmp_path)) == 2, what="two items run")
    worker.stop()
    wait_until(lambda: "soft shutdown" in worker.log, what="it begins to shut down")
    (tmp_path / "gate").touch()
    assert worker.wait() == 0
    assert batch.record().request_counts.done >= 2
    quick.start_worker()
    committed_once(quick, batch)
    assert {item.attempts for item in batch.results()} == {1}
    assert len(starts(tmp_path)) == 8


@pytest.mark.parametrize("chain", ["gated", "block"])
@pytest.mark.parametrize("size", [1, 5])
def test_a_worker_that_must_end_hands_back_what_it_runs(
    deploy: Deploy, tmp_path: Path, size: int, chain: str
) -> None:
    for name in ("gated", "block"):
        register(name, _same, replace=True)
    # The lease is long: only what is handed back can run elsewhere soon.
    deployment = deploy(lease=60, sweep_interval=0.2, shutdown_grace=0.5)
    first = deployment.start_worker(concurrency=2, env={"REMAP_SIGTERM": "SIGQUIT"})
    seconds = {"seconds": 3.0} if chain == "block" else {}
    inputs = [each | seconds for each in gated(tmp_path, 6)]
    batch = deployment.client.submit(chain, inputs, items_per_task=size)
    wait_until(lambda: batch.record().running == 2, what="two items run")
    first.stop()
    wait_until(lambda: "handing back" in first.log, what="its time is over")
    wait_until(lambda: batch.record().running == 0, what="it has handed them back")
    (tmp_path / "gate").touch()
    second = deployment.start_worker(concurrency=6)
    committed_once(deployment, batch)
    assert {item.attempts for item in batch.results()} == {1}, "it has cost nobody an attempt"
    if chain == "gated":
        assert {item.output for item in batch.results()} == {second.pid}
    assert first.wait() == 0


def test_a_restart_of_the_server_that_loses_nothing_is_survived(
    quick: Deployment, tmp_path: Path
) -> None:
    worker = quick.start_worker(concurrency=2)
    batch = quick.client.submit("gated", gated(tmp_path, 6))
    wait_until(lambda: len(starts(tmp_path)) == 2, what="two items run")
    for kind in ("normal", "pubsub"):  # what a restart does to connections
        quick.redis.client_kill_filter(_type=kind, skipme=True)
    (tmp_path / "gate").touch()
    committed_once(quick, batch)
    assert worker.alive
    assert {item.output for item in batch.results()} == {worker.pid}
