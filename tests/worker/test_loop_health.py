"""Signs of a blocked event loop in all that watches a worker, and no endless wait for one."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from batchord.ledger.lifecycle.diagnostics import Grade, checkup
from batchord.worker.control import ILL
from batchord.worker.flower.metrics import BatchMetrics
from batchord.worker.flower.queries import Queries
from tests.conftest import Deploy
from tests.support.harness import CHAINS, Deployment, wait_until

pytestmark = pytest.mark.timeout(120)

ENV = {"BATCHORD_CHAINS": f"{CHAINS},tests.chains_for_tests.hostile"}


def _health_check(deployment: Deployment) -> str:
    """Return what the health check of docker-compose.yml prints as it fails, or "" (exit 0)."""
    argv = [sys.executable, "-P", "-m", "batchord.worker.health"]
    check = subprocess.run(argv, env=deployment.env(ENV), capture_output=True, text=True)
    assert (check.returncode == 0) == (not check.stderr.strip()), check.stderr
    return check.stderr


def _ping(deployment: Deployment) -> str:
    answers = deployment.client._app.control.inspect(limit=1, timeout=10).ping() or {}
    [answer] = answers.values()
    return "" if answer == {"ok": "pong"} else str(answer)


def _doctor(deployment: Deployment) -> str:
    found = checkup(deployment.client._store)
    [loops] = [each for each in found if "event loop" in each.what]
    return "" if loops.grade is Grade.OK else loops.what


def _metric(deployment: Deployment) -> str:
    metrics = BatchMetrics(Queries(deployment.client._app, deployment.settings))
    asyncio.run(metrics.look())
    [lag] = [each for each in metrics.collect() if each.name == "batchord_loop_lag_seconds"]
    [sample] = lag.samples
    return str(sample) if sample.value > 1.0 else ""


def _well(ask: Callable[[Deployment], str], deployment: Deployment) -> bool:
    return not ask(deployment)


#: By what is asked: who answers, and the pools in which it knows of the loop that runs items.
WATCHERS: dict[str, tuple[Callable[[Deployment], str], set[str]]] = {
    "health check": (_health_check, {"asyncio", "prefork"}),
    # In prefork the parent answers, which runs no item.
    "inspect ping": (_ping, {"asyncio"}),
    "doctor": (_doctor, {"asyncio", "prefork"}),
    "metric": (_metric, {"asyncio", "prefork"}),
}


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_all_that_watch_tell_of_a_blocked_loop_and_of_one_that_turns(
    deploy: Deploy, tmp_path: Path, pool: str
) -> None:
    deployment = deploy(lease=3.0, loop_timeout=90.0)
    deployment.start_worker(pool=pool, concurrency=1, env=ENV)
    assert deployment.client.submit("harm", [{"value": 0}]).outputs() == [0]
    batch = deployment.client.submit(
        "block-at-gate", [{"gate": str(tmp_path / "gate"), "value": 1}]
    )
    wait_until(lambda: batch.record().running == 1, what="it blocks")
    time.sleep(ILL)
    for name, (ask, pools) in WATCHERS.items():
        if pool in pools:
            wait_until(partial(ask, deployment), what=f"{name} tells of it")
        else:
            assert not ask(deployment), name
    (tmp_path / "gate").touch()
    assert batch.outputs() == [1]
    for name, (ask, _) in WATCHERS.items():
        wait_until(partial(_well, ask, deployment), what=f"{name} says that all is well")


def test_cancel_ends_a_batch_whose_item_blocks_the_loop(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(sweep_interval=0.3, lease=1.5, loop_timeout=1.5)
    worker = deployment.start_worker(env=ENV)
    batch = deployment.client.submit(
        "block-at-gate", [{"gate": str(tmp_path / "never"), "value": 1}]
    )
    wait_until(lambda: batch.record().running == 1, what="it blocks")
    batch.cancel()
    assert worker.wait(60) == os.EX_SOFTWARE
    deployment.start_worker(env=ENV)
    assert batch.wait(60).status == "cancelled"


#: By what SIGTERM begins: the settings of the worker, and what its log says as it ends.
SHUTDOWNS = {
    "warm": ({}, {"loop_timeout": 3.0}, "(BATCHORD_LOOP_TIMEOUT)"),
    "soft": (
        {"REMAP_SIGTERM": "SIGQUIT"},
        {"loop_timeout": 90.0, "shutdown_grace": 0.5},
        "handing back what still runs",
    ),
}


@pytest.mark.parametrize("shutdown", SHUTDOWNS)
def test_a_worker_whose_loop_is_blocked_ends_on_sigterm_and_its_items_run_elsewhere(
    deploy: Deploy, tmp_path: Path, shutdown: str
) -> None:
    env, settings, words = SHUTDOWNS[shutdown]
    deployment = deploy(sweep_interval=0.3, lease=1.5, **settings)
    worker = deployment.start_worker(env=ENV | env)
    gated = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    others = deployment.client.submit("gated", [gated | {"value": i} for i in range(2)])
    wait_until(lambda: others.record().running == 2, what="the others run")
    batch = deployment.client.submit("block-at-gate", [{"gate": gated["gate"], "value": 1}])
    wait_until(lambda: batch.record().running == 1, what="it blocks")
    worker.stop()
    assert worker.wait(90) == os.EX_SOFTWARE
    assert words in worker.log
    (tmp_path / "gate").touch()
    deployment.start_worker(env=ENV)
    assert batch.outputs() == [1]
    assert [item.attempts for item in others.results()] == [1, 1]
