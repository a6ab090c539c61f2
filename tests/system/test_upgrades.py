"""Versions of Batchord side by side: each serves its own batches and those of the one before.

The other versions are copies of this tree with another format of the ledger, in processes of their
own: producers, workers, and Flower's queries in this one.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from batchord.cli import program
from batchord.ledger.errors import OtherFormat
from batchord.ledger.lifecycle.diagnostics import Grade, checkup
from batchord.ledger.models import BatchStatus
from batchord.ledger.needs import FORMAT
from batchord.worker.flower.queries import Queries
from tests.conftest import Deploy
from tests.support.harness import Deployment, Process, wait_until
from tests.support.other_trees import copy_tree

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

#: The version before this one, this one, and the next.
VERSIONS = {"before": FORMAT - 1, "this": FORMAT, "next": FORMAT + 1}
COUNT = 20

Trees = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    """The environment in which each version runs."""
    folder = tmp_path_factory.mktemp("trees")
    return {
        name: {} if name == "this" else {"PYTHONPATH": str(copy_tree(folder / name, format_))}
        for name, format_ in VERSIONS.items()
    }


_SUBMIT = """
import sys, json
from batchord import Client, register
register("gated", str)
print(Client().submit("gated", json.loads(sys.argv[1]), allow_unserved=True).id)
"""

_ASK = """
import sys
from batchord import Client
print(Client().retrieve(sys.argv[1]).why_waiting())
"""


def _run(deployment: Deployment, env: dict[str, str], text: str, argument: str) -> str:
    """Run a producer of a version."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", text, argument],
        env=deployment.env(env),
        cwd=deployment.folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def submit(deployment: Deployment, env: dict[str, str], inputs: list[Any]) -> str:
    return _run(deployment, env, _SUBMIT, json.dumps(inputs))


def served(producer: str, worker: str) -> bool:
    """Whether a worker of this version serves a batch of that one."""
    return VERSIONS[producer] in (VERSIONS[worker], VERSIONS[worker] - 1)


def status(deployment: Deployment, batch_id: str) -> str | None:
    """The status of a batch of any version."""
    found: Any = deployment.redis.hget(f"batchord:{{{batch_id}}}:meta", "status")
    return None if found is None else str(found)


def _ends(deployment: Deployment, batch_ids: Iterable[str]) -> None:
    for batch_id in batch_ids:
        wait_until(
            lambda: status(deployment, batch_id) == "completed",  # noqa: B023
            what=f"{batch_id} is completed",
            timeout=90,
        )
        runs = deployment.redis.hgetall(f"batchord:{{{batch_id}}}:stats")
        assert not runs.get("restarts"), "no attempt was lost"


@pytest.mark.parametrize("worker", VERSIONS)
def test_a_worker_serves_its_format_and_the_one_before_and_leaves_others_alone(
    deploy: Deploy, trees: Trees, worker: str
) -> None:
    deployment = deploy(sweep_interval=0.3)
    opened = [gated(deployment.folder, ".") for _ in range(COUNT)]
    batches = {name: submit(deployment, trees[name], opened) for name in VERSIONS}
    first = deployment.start_worker(env=trees[worker])
    _ends(deployment, [batches[name] for name in VERSIONS if served(name, worker)])
    left = [name for name in VERSIONS if not served(name, worker)]
    for name in left:
        wait_until(
            lambda: f"{batches[name]} is of format" in first.log,  # noqa: B023
            what="its sweep says that it leaves the batch alone",
        )
        wait_until(
            lambda: (
                "no live worker serves batches of format"
                in _run(deployment, trees[name], _ASK, batches[name])  # noqa: B023
            ),
            what="the producer is told",
        )
        assert status(deployment, batches[name]) == "in_progress"
        assert not deployment.redis.exists(f"batchord:{{{batches[name]}}}:runs"), "nothing started"
    # Each message is put apart once, and not again and again.
    assert first.log.count("put apart") <= COUNT * len(left)
    for name in left:
        deployment.start_worker(env=trees[name])
    _ends(deployment, batches.values())
    assert "Traceback" not in first.log


def test_a_batch_runs_through_a_rolling_restart_forwards_and_back(
    deploy: Deploy, trees: Trees
) -> None:
    deployment = deploy(sweep_interval=0.3, shutdown_grace=0.2)
    soft = {"REMAP_SIGTERM": "SIGQUIT"}
    folder = deployment.folder

    def start(version: str) -> Process:
        # Each has room for all items: those behind a closed gate hold up no other.
        return deployment.start_worker(env={**trees[version], **soft}, concurrency=4 * COUNT)

    def replace(old: Process, version: str) -> Process:
        new = start(version)
        old.stop()
        old.wait(60)
        return new

    worker = start("this")
    batch_id = submit(
        deployment, {}, [gated(folder, "a" if n < COUNT else "b") for n in range(2 * COUNT)]
    )
    long = deployment.client.retrieve(batch_id)
    wait_until(lambda: long.record().running == 2 * COUNT, what="it runs")
    # Forwards: workers first, then producers.
    worker = replace(worker, "next")
    (folder / "a").touch()
    wait_until(lambda: long.record().request_counts.done == COUNT, what="it goes on", timeout=60)
    newer = submit(deployment, trees["next"], [gated(folder, "c") for _ in range(COUNT)])
    wait_until(lambda: runs_of(deployment, newer), what="the new one runs")
    # And back: what the newer version has begun waits for it.
    worker = replace(worker, "this")
    wait_until(lambda: not runs_of(deployment, newer), what="nothing of it runs")
    (folder / "b").touch()
    (folder / "c").touch()
    assert long.wait(90).status is BatchStatus.COMPLETED
    assert {item.attempts for item in long.results()} == {1}
    assert status(deployment, newer) == "in_progress"
    _is_said_by_this_version(deployment, newer)
    start("next")
    _ends(deployment, [newer])


def gated(folder: Path, gate: str) -> dict[str, str]:
    """An input of an item that waits until the file is there."""
    return {"path": str(folder / "starts"), "gate": str(folder / gate), "value": gate}


def runs_of(deployment: Deployment, batch_id: str) -> int:
    """How many items of a batch of any version run."""
    return int(deployment.redis.zcard(f"batchord:{{{batch_id}}}:leases"))


def _is_said_by_this_version(deployment: Deployment, newer: str) -> None:
    """The command line, `doctor` and Flower name the batch that they leave alone."""
    with pytest.raises(OtherFormat, match=f"{newer} is of format {FORMAT + 1}"):
        deployment.client.retrieve(newer)
    environment = {"BATCHORD_REDIS_URL": deployment.url}
    for command in ("status", "cancel", "pause", "purge", "results", "errors", "retry", "watch"):
        answer = CliRunner().invoke(program, [command, newer], env=environment)
        assert (answer.exit_code, answer.stdout) == (2, ""), command
        assert f"is of format {FORMAT + 1}" in answer.stderr
    [finding] = [each for each in checkup(deployment.client._store) if "of format" in each.what]
    assert finding.grade is Grade.WARNING
    queries = Queries(deployment.client._app, deployment.settings)
    found = queries.find(limit=25, after=None, statuses=(), text="", with_failures=False)
    assert found["others"] == 1
    assert newer not in [each["id"] for each in found["batches"]]


def test_a_producer_is_refused_while_all_workers_are_of_the_version_before(
    deploy: Deploy, trees: Trees
) -> None:
    deployment = deploy(sweep_interval=0.3)
    deployment.start_worker(env=trees["before"])
    from batchord.chains import register
    from batchord.ledger.errors import SubmitRefused

    register("nap", str, replace=True)
    with pytest.raises(SubmitRefused, match=f"no live worker serves batches of format {FORMAT} "):
        deployment.client.submit("nap", [{"seconds": 0, "value": 1}])
    assert deployment.client.list() == []
