"""Revoking a task of a batch stops nothing, and whoever tries is told to use `cancel`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from chains import register
from chaos.judge import judge
from ledger.celery_app import create_app
from ledger.wire import RUN_ITEMS, gather_task_id, task_id
from producer import Batch
from tests.conftest import Deploy
from tests.harness import wait_until

pytestmark = pytest.mark.timeout(90)

Revoke = Callable[[Celery, list[str]], list[dict[str, Any]]]

REVOCATIONS: dict[str, Revoke] = {
    "revoke": lambda app, ids: app.control.revoke(ids, reply=True, timeout=5),
    "terminate": lambda app, ids: app.control.revoke(ids, terminate=True, reply=True, timeout=5),
    "kill": lambda app, ids: app.control.terminate(ids, signal="SIGKILL", reply=True, timeout=5),
}


def _two_run(batch: Batch) -> bool:
    return batch.record().running == 2


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_revoked_batch_goes_on(deploy: Deploy, pool: str, tmp_path: Path) -> None:
    register("work", str, replace=True)
    deployment = deploy(lease=2.0, sweep_interval=0.2)
    env = {"BATCHORD_CHAINS": "chaos.chains"}
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
    deployment.start_worker(concurrency=2, env={"BATCHORD_CHAINS": "chaos.chains"})
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
