"""Audit lines of a batch, failures across batches, and a purge that deletes nothing."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.core.actor import actor
from batchord.ledger.errors import UnknownBatch
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.models import BatchStatus
from batchord.producer import Batch
from batchord.worker.flower.queries import Queries
from tests.conftest import Deploy
from tests.support.cli_harness import Shell
from tests.support.flower_server import Flower
from tests.support.harness import Deployment, wait_until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def deployment(deploy_for_module: Deploy) -> Deployment:
    return deploy_for_module()


@pytest.fixture(scope="module")
def shell(deployment: Deployment) -> Iterator[Shell]:
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    yield shell
    shell.close()


@pytest.fixture(scope="module")
def flower(deployment: Deployment) -> Flower:
    flower = Flower(deployment)
    wait_until(lambda: flower.status("/healthcheck") == 200, what="Flower answers", timeout=60)
    return flower


@pytest.fixture
def batch(deployment: Deployment) -> Batch:
    register("nap", str, replace=True)
    return deployment.client.submit("nap", [{"seconds": 0, "value": n} for n in range(3)])


#: Who acts, from a batch, the command line and Flower; and as whom.
ACTS: dict[str, tuple[Callable[[Batch, Shell, Flower, str], Any], Callable[[], str]]] = {
    "Python": (lambda batch, shell, flower, did: getattr(batch, did)(), actor),
    "the command line": (lambda batch, shell, flower, did: shell.run(did, batch.id), actor),
    "Flower": (
        lambda batch, shell, flower, did: flower.ask(
            f"/api/batches/{batch.id}/{did}", method="POST"
        ),
        lambda: "flower:watcher",
    ),
}


@pytest.mark.parametrize("name", ACTS)
def test_what_is_done_to_a_batch_is_noted_with_who_did_it(
    batch: Batch, deployment: Deployment, shell: Shell, flower: Flower, name: str
) -> None:
    act, by = ACTS[name]
    for did in ("pause", "resume", "cancel"):
        act(batch, shell, flower, did)
    assert batch.record().status is BatchStatus.CANCELLED
    lines = deployment.client.audit(batch.id)
    assert [(line.did, line.by) for line in lines] == [
        (did, by()) for did in ("pause", "resume", "cancel")
    ]
    # What changes nothing is not noted.
    batch.cancel()
    assert len(deployment.client.audit(batch.id)) == 3
    answer = shell.run("audit", batch.id, "--json")
    assert [json.loads(line)["did"] for line in answer.out.splitlines()] == [
        *("pause", "resume", "cancel")
    ]
    assert f"cancel  by {by()}" in shell.run("audit", batch.id).out
    assert Queries(deployment.client._app, deployment.settings).batch(batch.id)["audit"]
    assert deployment.redis.ttl(f"batchord:{{{batch.id}}}:audit") > 0, "it ends with the batch"


def test_a_tenant_is_named_and_a_purge_is_told_when_the_batch_is_gone(
    batch: Batch, deployment: Deployment, shell: Shell
) -> None:
    control = BatchControl(deployment.client._app, deployment.client._store)
    control.cancel(batch.id, by="serve:ann")
    [line] = deployment.client.audit(batch.id)
    assert (line.did, line.by, line.batch_id) == ("cancel", "serve:ann", batch.id)
    assert deployment.client.purge(batch.id)
    with pytest.raises(UnknownBatch):
        deployment.client.audit(batch.id)
    line = deployment.client.audit()[-1]
    assert (line.did, line.by, line.batch_id) == ("purge", actor(), batch.id)
    assert f"purge {batch.id}  by {actor()}" in shell.run("audit").out
    assert deployment.keys_of(batch) == []


def test_a_dry_purge_names_what_would_go_and_deletes_nothing(
    batch: Batch, deployment: Deployment, shell: Shell
) -> None:
    register("nap", str, replace=True)
    going = deployment.client.submit("nap", [{"seconds": 0, "value": 1}])
    batch.cancel()
    answer = shell.run("purge", batch.id, going.id, "--dry-run", "--json")
    assert [json.loads(line) for line in answer.out.splitlines()] == [
        {"id": batch.id, "would_delete": True},
        {"id": going.id, "would_delete": False},
    ]
    answer = shell.run("purge", batch.id, going.id, "--dry-run")
    assert batch.id in answer.out
    assert "1 would be deleted, nothing is" in answer.out
    assert going.id in answer.err
    time.sleep(1.1)
    assert batch.id in shell.run("purge", "--older-than", "1s", "--dry-run").out
    assert batch.record().status is BatchStatus.CANCELLED
    going.cancel()
    assert shell.run("purge", "batch_" + "0" * 24, "--dry-run").code == 2


def test_failures_are_told_across_batches_by_chain_and_code(deploy: Deploy) -> None:
    deployment = deploy(alike_limit=0)
    deployment.start_worker()
    submit = deployment.client.submit
    faults: list[list[str | None]] = [["bug", None, "bug"], ["other", "bug"], [None]]
    batches = [
        submit("may-fail", [{"value": n, "fail": fault} for n, fault in enumerate(some)])
        for some in faults
    ]
    for one in batches:
        one.wait(60)
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    found = [json.loads(line) for line in shell.run("failures", "--json").out.splitlines()]
    assert sum(one["items"] for one in found) == 4
    most = found[0]
    assert (most["chain"], most["items"], most["batches"]) == ("may-fail", 3, 2)
    assert most["batch_id"] == batches[1].id
    assert most["code"] in shell.run("failures").out
    assert shell.run("failures", "--batches", "1", "--json").out.count("\n") == 2
