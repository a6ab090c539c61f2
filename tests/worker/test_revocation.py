"""Revoking a task of a batch stops nothing, and anyone who tries is told to use `cancel`."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.worker import state
from kombu.clocks import LamportClock

from batchord.chains import register
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.core.message_ids import RUN_ITEMS, gather_task_id, task_id
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until
from tests.support.judge import judge

pytestmark = pytest.mark.timeout(90)

Revoke = Callable[[Celery, list[str]], list[dict[str, Any]]]

REVOCATIONS: dict[str, Revoke] = {
    "revoke": lambda app, ids: app.control.revoke(ids, reply=True, timeout=10, limit=1),
    "terminate": lambda app, ids: app.control.revoke(
        ids, terminate=True, reply=True, timeout=10, limit=1
    ),
    "kill": lambda app, ids: app.control.terminate(
        ids, signal="SIGKILL", reply=True, timeout=10, limit=1
    ),
}


def _two_run(batch: Batch) -> bool:
    return batch.record().running == 2


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_a_revoked_batch_goes_on(deploy: Deploy, pool: str, tmp_path: Path) -> None:
    register("work", str, replace=True)
    deployment = deploy(lease=2.0, sweep_interval=0.2)
    env = {"BATCHORD_CHAINS": "tests.chains_for_tests.journal"}
    worker = deployment.start_worker(concurrency=2, pool=pool, env=env)
    app = create_app(deployment.settings)
    for name, revoke in REVOCATIONS.items():
        journal = tmp_path / name
        inputs = [{"index": i, "journal": str(journal), "seconds": 0.5} for i in range(8)]
        batch: Batch = deployment.client.submit("work", inputs)
        wait_until(partial(_two_run, batch), what="two items run")
        ids = [task_id(batch.id, range(i, i + 1)) for i in range(8)]
        [answer] = revoke(app, [*ids, gather_task_id(batch.id, 0)])
        [said] = answer.values()
        assert f"batchord cancel {batch.id}" in said["error"], name
        batch.wait(30)
        verdict = judge(deployment.redis, batch, journal)
        assert verdict.good, (name, verdict)
        assert verdict.most_starts == 1, name
        assert f"batchord cancel {batch.id}" in worker.log, name
    app.close()


#: What else the remote control has: command, arguments, and a part of the answer.
COMMANDS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("revoke", {"task_id": ["a-task-of-your-own"]}, "flagged as revoked"),
    ("time_limit", {"task_name": RUN_ITEMS, "hard": 1.0}, "BATCHORD_ITEM_TIMEOUT"),
    ("rate_limit", {"task_name": RUN_ITEMS, "rate_limit": "50/s"}, "set successfully"),
    ("pool_shrink", {"n": 1}, ""),
    ("pool_grow", {"n": 1}, ""),
    ("add_consumer", {"queue": "mine"}, "mine"),
    ("cancel_consumer", {"queue": "mine"}, "mine"),
)


def test_a_batch_ends_whatever_else_is_commanded(deploy: Deploy, tmp_path: Path) -> None:
    register("work", str, replace=True)
    deployment = deploy(lease=2.0, sweep_interval=0.2)
    deployment.start_worker(
        concurrency=2, env={"BATCHORD_CHAINS": "tests.chains_for_tests.journal"}
    )
    app = create_app(deployment.settings)
    journal = tmp_path / "journal"
    inputs = [{"index": i, "journal": str(journal), "seconds": 0.5} for i in range(12)]
    batch: Batch = deployment.client.submit("work", inputs)
    wait_until(partial(_two_run, batch), what="two items run")
    for name, arguments, said in COMMANDS:
        [answer] = app.control.broadcast(name, arguments=arguments, reply=True, timeout=10, limit=1)
        assert said in str(answer), name
    app.control.purge()
    batch.wait(60)
    verdict = judge(deployment.redis, batch, journal)
    assert verdict.good, verdict
    app.close()


#: What a message can carry that has Celery discard it: headers that replace those of each message.
HEADERS: dict[str, Mapping[str, Any]] = {
    "expired": {"expires": "2020-01-01T00:00:00+00:00"},
    "stamped": {"stamped_headers": ["owner"], "stamps": {"owner": ["me"]}},
}


def _edit_headers(deployment: Deployment, headers: Mapping[str, Any]) -> int:
    """Change the headers of every message that waits; return how many there are."""
    edited = 0
    for name in deployment.lists():
        for place, text in enumerate(deployment.redis.lrange(name, 0, -1)):
            message = json.loads(text)
            message["headers"] |= headers
            deployment.redis.lset(name, place, json.dumps(message))
            edited += 1
    return edited


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_a_batch_ends_whatever_its_messages_carry(
    deploy: Deploy, headers: Mapping[str, Any]
) -> None:
    register("echo", str, replace=True)
    deployment = deploy(sweep_interval=3600)
    worker = deployment.start_worker(concurrency=2)
    app = create_app(deployment.settings)
    app.control.revoke_by_stamped_headers({"owner": ["me"]}, reply=True, timeout=10, limit=1)
    for queue in deployment.settings.queues:
        app.control.cancel_consumer(queue, reply=True, timeout=10, limit=1)
    batch: Batch = deployment.client.submit("echo", ["a", "b", "c"])
    # One may have been on its way to the worker, which puts it back.
    wait_until(lambda: deployment.queued() == 3, what="all messages wait")
    assert _edit_headers(deployment, headers) == 3
    for queue in deployment.settings.queues:
        app.control.add_consumer(queue, reply=True, timeout=10, limit=1)
    assert batch.outputs() == ["a", "b", "c"]
    assert {item.attempts for item in batch.results()} == {1}
    assert (f"batchord cancel {batch.id}" in worker.log) == ("stamps" in headers)
    app.close()


def test_a_batch_ends_whatever_a_state_file_says(deploy: Deploy, tmp_path: Path) -> None:
    register("gated", str, replace=True)
    deployment = deploy(lease=2.0, sweep_interval=0.2, shutdown_grace=0.2)
    argv = ["batchord.worker", "-c", "2", "-l", "INFO", "--statedb", str(tmp_path / "state")]
    env = {"BATCHORD_POOL": "asyncio", "REMAP_SIGTERM": "SIGQUIT"}
    first = deployment.start(argv, "worker", env=env)
    deployment.wait_for_worker(first)
    gate = tmp_path / "gate"
    inputs = [{"value": i, "path": str(tmp_path / "starts"), "gate": str(gate)} for i in range(4)]
    batch: Batch = deployment.client.submit("gated", inputs)
    wait_until(partial(_two_run, batch), what="two items run")
    app = create_app(deployment.settings)
    app.control.revoke(["of-your-own"], reply=True, timeout=10, limit=1)
    first.stop()
    first.wait()
    _revoke_in(tmp_path / "state", [task_id(batch.id, range(i, i + 1)) for i in range(4)])
    gate.touch()
    second = deployment.start(argv, "worker", env=env)
    deployment.wait_for_worker(second)
    assert batch.outputs() == [second.pid] * 4
    assert f"batchord cancel {batch.id}" in second.log
    app.close()


def _revoke_in(path: Path, ids: list[str]) -> None:
    """Add revoked ids to the state file of a worker that has ended."""
    file = state.Persistent(state, str(path), clock=LamportClock())
    state.revoked.update(ids)
    file.save()
    state.revoked.clear()
