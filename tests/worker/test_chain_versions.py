"""A batch of a chain, or a version of it, that a worker lacks is left to a worker that has it."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.errors import SubmitRefused
from batchord.ledger.lifecycle.diagnostics import checkup
from batchord.ledger.models import BatchStatus
from batchord.ledger.needs import HEADER
from batchord.producer import Batch
from batchord.worker.flower.metrics import BatchMetrics
from batchord.worker.flower.queries import Queries
from tests.conftest import Deploy
from tests.support.cli_harness import Shell
from tests.support.harness import CHAINS, Deployment, Process, wait_until

pytestmark = pytest.mark.timeout(180)

COUNT = 30


@dataclass(frozen=True)
class Row:
    """Two workers' environments, of which the second alone serves the batch."""

    without: dict[str, str]
    having: dict[str, str]
    #: What is said while the second is not there.
    says: str
    chain: str = "versioned"
    #: The chain's version where the batch is submitted.
    version: str | None = "2"
    #: Whether the first worker is up when the batch is submitted, so that it knows of it.
    up_before: bool = False
    #: Whether its messages say what they need.
    header: bool = True
    more: dict[str, Any] = field(default_factory=dict)


def chains(*names: str, version: str = "") -> dict[str, str]:
    """The environment of a worker with these modules of chains."""
    modules = [CHAINS, *(f"tests.chains_for_tests.{name}" for name in names)]
    return {"BATCHORD_CHAINS": ",".join(modules), "TEST_VERSION": version}


V2 = chains("versioned", version="2")
ROWS: dict[str, Row] = {
    "no such chain": Row(chains(), V2, "no live worker has chain 'versioned'"),
    "no such chain, known at the submission": Row(
        chains(), V2, "no live worker has chain 'versioned'", up_before=True
    ),
    "another version": Row(
        chains("versioned", version="1"),
        V2,
        "no live worker has version '2' of chain 'versioned' (they have 1)",
    ),
    "another version, known at the submission": Row(
        chains("versioned", version="1"),
        V2,
        "no live worker has version '2' of chain 'versioned' (they have 1)",
        up_before=True,
    ),
    "not among its chains": Row(
        {**V2, "BATCHORD_CHAINS_ONLY": "nap"}, V2, "no live worker has chain 'versioned'"
    ),
    "in messages of before": Row(
        chains(), V2, "no live worker has chain 'versioned'", version=None, header=False
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_worker_leaves_what_it_does_not_serve_to_one_that_does(deploy: Deploy, name: str) -> None:
    row = ROWS[name]
    deployment = deploy(sweep_interval=0.3)
    register("versioned", str, version=row.version, replace=True)
    first: list[Process] = []
    if row.up_before:
        first.append(deployment.start_worker(env=row.without))
        with pytest.raises(SubmitRefused, match="no live worker has"):
            deployment.client.submit(row.chain, range(COUNT))
    batch = deployment.client.submit(row.chain, range(COUNT), allow_unserved=True)
    if not row.header:
        _strip_headers(deployment)
    if not row.up_before:
        first.append(deployment.start_worker(env=row.without))
        wait_until(
            lambda: "put apart" in first[0].log or "item put off" in first[0].log,
            what="the first worker has met the batch",
        )
    wait_until(lambda: row.says in batch.why_waiting(), what="it is said why nothing runs")
    _is_said_everywhere(deployment, batch, row.says)
    assert batch.record().request_counts.done == 0
    # What the first serves goes on beside it.
    assert deployment.client.submit("nap", [{"seconds": 0, "value": 1}]).outputs() == [1]
    second = deployment.start_worker(env=row.having)
    record = batch.wait(90)
    assert record.status is BatchStatus.COMPLETED
    assert record.request_counts.succeeded == COUNT
    assert {item.output for item in batch.results()} == {f"{row.version}" if row.version else "2"}
    assert {item.attempts for item in batch.results()} == {1}
    # Each message is put apart once at most, and not again and again.
    for worker in (*first, second):
        assert worker.log.count("put apart") <= 2 * COUNT
        assert "Traceback" not in worker.log


def _strip_headers(deployment: Deployment) -> None:
    """Have the messages in the queue as a version wrote them that did not say what they need."""
    for name in deployment.lists():
        texts = [json.loads(text) for text in deployment.redis.lrange(name, 0, -1)]
        for text in texts:
            del text["headers"][HEADER]
        if texts:
            deployment.redis.delete(name)
            deployment.redis.rpush(name, *map(json.dumps, texts))


def _is_said_everywhere(deployment: Deployment, batch: Batch, says: str) -> None:
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    # Without a header an item is claimed for a moment, and put off.
    wait_until(lambda: says in shell.run("status", batch.id).out, what="status says it", timeout=60)
    assert any(says in each.what for each in checkup(deployment.client._store))
    queries = Queries(deployment.client._app, deployment.settings)
    wait_until(lambda: says in queries.batch(batch.id)["trouble"], what="Flower says it")
    metrics = BatchMetrics(queries)
    asyncio.run(metrics.look())
    [gauge] = [each for each in metrics.collect() if each.name == "batchord_unserved_batches"]
    assert [(each.labels, each.value) for each in gauge.samples] == [({"chain": "versioned"}, 1.0)]


def test_a_thin_client_submits_to_the_version_that_is_rolled_out(deploy: Deploy) -> None:
    deployment = deploy(sweep_interval=0.3)
    for version in ("1", "2"):
        deployment.start_worker(env=chains("versioned", version=version))
        batch = deployment.client.submit("versioned", [1, 2])
        assert batch.record().chain_version == version
        assert batch.outputs() == [version, version]


def test_chains_that_are_data_run_on_a_worker_of_few_chains(deploy: Deploy, provider: Any) -> None:
    from tests.support.harness import provider_env

    deployment = deploy(sweep_interval=0.3)
    worker = deployment.start_worker(
        env={**chains(), "BATCHORD_CHAINS_ONLY": "nap", **provider_env(provider)}
    )
    batch = deployment.client.submit(prompt="Say {x}", model="test-model", inputs=[{"x": 1}])
    assert batch.wait(60).request_counts.succeeded == 1
    assert "put apart" not in worker.log


def test_a_name_that_is_not_registered_is_refused_at_the_start(deploy: Deploy) -> None:
    deployment = deploy()
    worker = deployment.start_worker(
        env={**chains(), "BATCHORD_CHAINS_ONLY": "nap,naps"}, wait=False
    )
    assert worker.wait(60) != 0
    assert "no chain is registered as 'naps'" in worker.log
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    answer = shell.run("worker", "--chains", CHAINS, "--chains-only", "naps")
    assert answer.code == 2
    assert "no chain is registered as 'naps'" in answer.err
