"""Revoking a task of a batch stops nothing, and whoever tries is told to use `cancel`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from celery import Celery

from chains import register
from chaos.judge import judge
from ledger.celery_app import create_app
from ledger.wire import gather_task_id, task_id
from producer import Batch
from tests.conftest import Deploy
from tests.harness import wait_until

pytestmark = pytest.mark.timeout(90)

Revoke = Callable[[Celery, list[str]], object]

REVOCATIONS: dict[str, Revoke] = {
    "revoke": lambda app, ids: app.control.revoke(ids, reply=True, timeout=2),
    "terminate": lambda app, ids: app.control.revoke(ids, terminate=True, reply=True, timeout=2),
    "kill": lambda app, ids: app.control.terminate(ids, signal="SIGKILL", reply=True, timeout=2),
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
        revoke(app, [*ids, gather_task_id(batch.id, 0)])
        batch.wait(30)
        verdict = judge(deployment.redis, batch, journal)
        assert verdict.good, (name, verdict)
        assert verdict.most_starts == 1, name
        assert f"batchord cancel {batch.id}" in worker.log, name
    app.close()
