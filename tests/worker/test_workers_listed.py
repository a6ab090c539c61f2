"""Live workers: what each says of itself is in the ledger, and goes with it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.core.package_version import package_version
from batchord.ledger.lifecycle.diagnostics import Grade, checkup
from batchord.ledger.storage.fleet import Beat, Fleet, ServedChain
from tests.conftest import Deploy
from tests.support.cli_harness import Shell
from tests.support.harness import CHAINS, Deployment, Process, wait_until

pytestmark = pytest.mark.timeout(120)

ENV = {"BATCHORD_CHAINS": f"{CHAINS},tests.chains_for_tests.versions", "TEST_VERSION": "7"}


def _list(deployment: Deployment) -> list[dict[str, Any]]:
    shell = Shell(
        deployment.folder / f"shell-{os.urandom(4).hex()}", BATCHORD_REDIS_URL=deployment.url
    )
    answer = shell.run("workers", "--json")
    assert answer.code == 0, answer.err
    return [json.loads(line) for line in answer.out.splitlines()]


@pytest.mark.parametrize("pool", ["asyncio", "threads", "prefork"])
def test_a_worker_says_what_it_is_and_does_until_it_ends(
    deploy: Deploy, tmp_path: Path, pool: str
) -> None:
    deployment = deploy(sweep_interval=0.3)
    worker = deployment.start_worker(pool=pool, concurrency=3, env=ENV)
    [idle] = deployment.client.fleet().workers.values()
    assert (idle.slots, idle.in_flight, idle.version) == (3, 0, package_version())
    assert idle.queues == tuple(sorted(deployment.settings.queues))
    gated = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    batch = deployment.client.submit("gated", [gated | {"value": i} for i in range(2)])
    wait_until(lambda: [each["in_flight"] for each in _list(deployment)] == [2], what="two run")
    [told] = _list(deployment)
    assert told["process"].endswith(f":{worker.pid}")
    assert (told["pool"], told["slots"]) == (pool, 3)
    assert told["chains"]["answer"]["version"] == "7"
    assert told["loop_lag"] < 60
    (tmp_path / "gate").touch()
    batch.wait(60)
    wait_until(lambda: _only(deployment).in_flight == 0, what="nothing runs")
    _drain(deployment, worker)
    wait_until(lambda: not _only(deployment).queues, what="it is told that it is drained")
    [finding] = [each for each in checkup(deployment.client._store) if "drained" in each.what]
    assert finding.grade is Grade.WARNING
    worker.stop()
    wait_until(lambda: not deployment.client.fleet().workers, what="it has left")


def _only(deployment: Deployment) -> Beat:
    [beat] = deployment.client.fleet().workers.values()
    return beat


def _drain(deployment: Deployment, worker: Process) -> None:
    """Drain it as docs/operating.md says."""
    ready = next(line for line in worker.log.splitlines() if line.endswith(" ready."))
    with create_app(deployment.settings) as app:
        for queue in deployment.settings.queues:
            app.control.cancel_consumer(queue, destination=[ready.split()[-2]])


CHILD = Beat(child_of="a:1", in_flight=1, loop_lag=2.5)
#: What the processes have said, and the worker "a:1" as it is listed: what it runs, and its lag.
FAMILIES: dict[str, tuple[dict[str, Beat], tuple[int, float | None] | None]] = {
    "alone": ({"a:1": Beat(name="w", in_flight=3, loop_lag=0.1)}, (3, 0.1)),
    "has run nothing": ({"a:1": Beat(name="w")}, (0, None)),
    "with children": (
        {"a:1": Beat(name="w"), "a:2": CHILD, "a:3": Beat(child_of="a:1", in_flight=1, loop_lag=0)},
        (2, 2.5),
    ),
    "its children alone": ({"a:2": CHILD}, None),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_children_count_to_their_worker_and_go_with_it(name: str) -> None:
    beats, listed = FAMILIES[name]
    fleet = Fleet.of(beats)
    found = fleet.workers.get("a:1")
    assert (None if found is None else (found.in_flight, found.loop_lag)) == listed
    assert set(fleet.workers) == ({"a:1"} if listed else set())
    assert max(fleet.lags.values(), default=None) == (listed[1] if listed else None)


#: What a worker has said, and what the table of `batchord workers` has of it.
ROWS: dict[str, tuple[Beat, Callable[[str], bool]]] = {
    "well": (
        Beat(
            name="w@h",
            version="0.9",
            slots=8,
            in_flight=3,
            loop_lag=0.0,
            queues=("batchord",),
            chains={"triage": ServedChain(version="2"), "embed": ServedChain()},
        ),
        lambda text: all(part in text for part in ("w@h", "0.9", "3/8", "embed, triage 2")),
    ),
    "drained": (Beat(name="w@h"), lambda text: "w@h (drained)" in text),
    "late": (Beat(name="w@h", loop_lag=7.25, queues=("q",)), lambda text: "7.2 s" in text),
    "many chains": (
        Beat(name="w@h", chains={f"c{n}": ServedChain() for n in range(9)}),
        lambda text: "c4, and 4 more" in text and "c5" not in text,
    ),
    "of another version": (Beat(), lambda text: "far:1" in text and "?" in text),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_table_of_workers_has_what_is_known(deployment: Deployment, name: str) -> None:
    beat, has = ROWS[name]
    now_ms = int(float(deployment.redis.time()[0]) * 1000)
    deployment.redis.hset(
        "batchord:fleet", "far:1", f"{now_ms} {beat.model_dump_json(exclude_defaults=True)}"
    )
    deployment.redis.expire("batchord:fleet", 60)
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    answer = shell.run("workers")
    assert answer.code == 0
    assert has(answer.out), answer.out


def test_without_workers_the_list_says_how_to_start_one(deployment: Deployment) -> None:
    answer = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url).run("workers")
    assert (answer.code, answer.out) == (0, "")
    assert "no worker is alive: start one with `batchord worker" in answer.err
