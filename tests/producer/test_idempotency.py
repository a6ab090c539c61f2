"""One idempotency key, one batch: nothing runs twice, anyone who submits it how often."""

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.core.message_ids import new_batch_id
from batchord.ledger.errors import IdempotencyConflict
from batchord.ledger.models import BatchStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.producer import Client, recording
from tests.conftest import Deploy
from tests.support.harness import Deployment, lines_of, wait_until
from tests.support.valkey import Server

pytestmark = pytest.mark.timeout(60)

#: Submits 1,500 inputs and more under a key, and is killed before it can seal.
DYING = """
import os, signal
from batchord.producer import Client

def inputs():
    yield from range(1500)
    os.kill(os.getpid(), signal.SIGKILL)

Client().submit("echo", inputs(), idempotency_key="key")
"""

#: Submits 1,500 inputs under a key, and is frozen amid them.
FREEZING = """
import os, signal
from batchord.producer import Client

def inputs():
    yield from range(1200)
    os.kill(os.getpid(), signal.SIGSTOP)
    yield from range(300)

print("batch", Client().submit("echo", inputs(), idempotency_key="key").id)
"""

#: Submits journal entries under a key and prints the id of the batch.
RACING = """
import sys
from batchord.producer import Client

inputs = [{"value": i, "path": sys.argv[1]} for i in range(20)]
print("batch", Client().submit("journal", inputs, idempotency_key="key").id)
"""


def entries(path: Path, count: int) -> list[dict[str, Any]]:
    return [{"value": i, "path": str(path)} for i in range(count)]


def test_the_same_key_again_is_the_same_batch(shared: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first = shared.client.submit("journal", entries(path, 30), idempotency_key="again")
    second = shared.client.submit("journal", entries(path, 30), idempotency_key="again")
    first.wait(10)
    third = shared.client.submit("journal", entries(path, 30), idempotency_key="again")
    assert first.id == second.id == third.id
    assert third.outputs() == list(range(30))
    assert sorted(map(int, lines_of(path))) == list(range(30))
    assert third.record().idempotency_key == "again"


def test_other_keys_are_other_batches(shared: Deployment) -> None:
    ids = {shared.client.submit("echo", [1], idempotency_key=key).id for key in ("a", "b", None)}
    assert len(ids) == 3
    for batch_id in ids:
        shared.client.retrieve(batch_id).wait(10)


def test_eight_racing_threads_make_one_batch(shared: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    start = threading.Barrier(8)

    def submit(_: int) -> str:
        with Client(settings=shared.settings) as client:
            start.wait()
            return client.submit("journal", entries(path, 50), idempotency_key="race").id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(submit, range(8)))
    assert len(ids) == 1
    batch = shared.client.retrieve(ids.pop())
    assert batch.outputs() == list(range(50))
    assert sorted(map(int, lines_of(path))) == list(range(50))
    batch.wait(10)


def test_racing_processes_make_one_batch(shared: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    script = tmp_path / "racing.py"
    script.write_text(RACING)
    racing = [shared.start_script(script, str(path)) for _ in range(3)]
    assert [process.wait() for process in racing] == [0, 0, 0]
    [batch_id] = {process.log.split()[-1] for process in racing}
    assert shared.client.retrieve(batch_id).outputs() == list(range(20))
    assert sorted(map(int, lines_of(path))) == list(range(20))
    shared.client.retrieve(batch_id).wait(10)


def test_a_key_of_another_chain_is_a_conflict(shared: Deployment) -> None:
    batch = shared.client.submit("echo", [1], idempotency_key="taken")
    before = shared.redis.zcard("batchord:batches")
    with pytest.raises(IdempotencyConflict, match=f"{batch.id}.*'echo'.*choose another key"):
        shared.client.submit("double", [1], idempotency_key="taken")
    assert shared.redis.zcard("batchord:batches") == before
    batch.wait(10)


#: What was submitted under a key, what is submitted under it now, and whether it is the same.
AGAIN: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"inputs": [1, 2]}, {"inputs": [1, 2]}, True),
    ({"inputs": [{"a": 1, "b": 2}]}, {"inputs": [{"b": 2, "a": 1}]}, True),
    ({"inputs": range(2500)}, {"inputs": iter(range(2500))}, True),
    ({"inputs": ["é"]}, {"inputs": ["\u00e9"], "metadata": {"other": "options"}}, True),
    ({"inputs": [1, 2]}, {"inputs": [2, 1]}, False),
    ({"inputs": [1, 2]}, {"inputs": [1, 2, 3]}, False),
    ({"inputs": [1, 2]}, {"inputs": [1]}, False),
    ({"inputs": [1]}, {"inputs": ["1"]}, False),
    ({"inputs": [1, 23]}, {"inputs": [12, 3]}, False),
    ({"inputs": range(2500)}, {"inputs": [*range(2499), 0]}, False),
    ({"inputs": [1]}, {"inputs": [1], "custom_ids": ["a"]}, False),
    ({"inputs": [1], "custom_ids": ["b"]}, {"inputs": [1], "custom_ids": ["a"]}, False),
    ({"inputs": [1]}, {"inputs": [1], "config": [{"tags": ["x"]}]}, False),
]


@pytest.mark.parametrize(("before", "now", "same"), AGAIN, ids=range(len(AGAIN)))
def test_a_key_is_refused_for_other_inputs(
    deployment: Deployment, before: dict[str, Any], now: dict[str, Any], same: bool
) -> None:
    register("echo", _echo, replace=True)
    first = deployment.client.submit("echo", **before, idempotency_key="key")
    if same:
        assert deployment.client.submit("echo", **now, idempotency_key="key").id == first.id
    else:
        with pytest.raises(IdempotencyConflict, match=f"'key'.*{first.id}.*another key"):
            deployment.client.submit("echo", **now, idempotency_key="key")
    assert [record.id for record in deployment.client.list()] == [first.id]


def test_a_longer_file_under_the_same_key_is_not_read_to_its_end(deployment: Deployment) -> None:
    register("echo", _echo, replace=True)
    deployment.client.submit("echo", [0, 1], idempotency_key="key")
    taken = []

    def without_end() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    with pytest.raises(IdempotencyConflict, match="another key"):
        deployment.client.submit("echo", without_end(), idempotency_key="key")
    assert len(taken) == 1000


def test_a_batch_whose_producer_was_killed_is_submitted_again(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy(submit_timeout=1.0)
    register("echo", _echo, replace=True)
    script = tmp_path / "dying.py"
    script.write_text("import tests.chains_for_tests.basic\n" + DYING)
    dying = deployment.start_script(script)
    assert dying.wait() == -9
    [dead] = deployment.redis.zrange("batchord:active", 0, -1)
    assert len(deployment.keys_of(dead)) > 1, "it had begun to write"
    batch = deployment.client.submit("echo", range(3), idempotency_key="key")
    assert batch.id != dead
    assert deployment.keys_of(dead) == []
    deployment.start_worker()
    assert batch.outputs() == [0, 1, 2]
    assert [record.id for record in deployment.client.list()] == [batch.id]
    batch.wait(10)


def _echo(value: Any) -> Any:
    return value


def test_a_key_whose_producer_died_before_it_wrote_is_taken_over(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_OPEN_GRACE", 0.2)
    register("echo", _echo, replace=True)
    dead = new_batch_id()
    store = BatchStore(deployment.settings)
    assert store.take_key("key", dead) == dead
    store.close()
    batch = deployment.client.submit("echo", [1], idempotency_key="key")
    assert batch.id != dead
    assert deployment.client.submit("echo", [1], idempotency_key="key").id == batch.id


def test_a_producer_that_writes_slowly_is_waited_for(deployment: Deployment) -> None:
    register("echo", _echo, replace=True)
    go_on = threading.Event()

    def slowly() -> Iterator[int]:
        yield from range(1000)
        assert go_on.wait(20)
        yield 1000

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(
            lambda: deployment.client.submit("echo", slowly(), idempotency_key="key").id
        )
        wait_until(lambda: deployment.redis.dbsize() > 3, what="the slow one has begun")
        other = pool.submit(
            lambda: deployment.client.submit("echo", range(1001), idempotency_key="key").id
        )
        with pytest.raises(TimeoutError):
            other.result(0.3)
        go_on.set()
        assert slow.result(10) == other.result(10)
    assert deployment.client.retrieve(slow.result()).record().request_counts.total == 1001


def test_a_producer_that_was_frozen_gets_the_batch_of_who_took_over(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy(submit_timeout=1.0)
    register("echo", _echo, replace=True)
    script = tmp_path / "freezing.py"
    script.write_text("import tests.chains_for_tests.basic\n" + FREEZING)
    frozen = deployment.start_script(script)
    wait_until(lambda: deployment.redis.zcard("batchord:active"), what="it has begun to write")
    [old] = deployment.redis.zrange("batchord:active", 0, -1)
    same = [*range(1200), *range(300)]
    batch = deployment.client.submit("echo", same, idempotency_key="key")
    assert batch.id != old
    os.kill(frozen.pid, signal.SIGCONT)
    assert frozen.wait() == 0, frozen.log
    assert frozen.log.split()[-1] == batch.id
    assert deployment.keys_of(old) == []
    assert [record.id for record in deployment.client.list()] == [batch.id]
    assert batch.record().status is BatchStatus.IN_PROGRESS


class Odd(Exception):
    """The trouble that came first."""


def test_a_server_that_is_gone_does_not_hide_what_went_wrong_first(
    server: Server, deploy: Deploy, caplog: pytest.LogCaptureFixture
) -> None:
    deployment = deploy(url=server.url, socket_timeout=0.3)
    register("echo", _echo, replace=True)

    def inputs() -> Iterator[int]:
        yield from range(1000)
        server.kill()
        raise Odd

    with pytest.raises(Odd):
        deployment.client.submit("echo", inputs(), idempotency_key="key")
    assert "not taken back yet" in caplog.text
    server.start()
