"""A process that is killed at the worst of moments leaves nothing undone."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.core.failpoints import VARIABLE
from batchord.ledger.models import BatchStatus
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.crew import Crew
from tests.support.harness import Deployment, wait_until
from tests.support.judge import judge

pytestmark = pytest.mark.timeout(60)

ITEMS = 40


@pytest.fixture
def quick(deploy: Deploy) -> Deployment:
    """A deployment of small shards, whose leases are short and whose workers sweep often."""
    register("work", _same, replace=True)
    return deploy(lease=1.0, sweep_interval=0.2, submit_timeout=1.0, shard_size=10)


def _same(value: Any) -> Any:
    return value


class Ground:
    """A deployment and a batch on which one crash is tried."""

    def __init__(self, folder: Path, point: str) -> None:
        self.journal = folder / "journal"
        self.mark = folder / "crashed"
        self.env = {VARIABLE: f"{point}:{self.mark}"}

    def inputs(self, count: int = ITEMS, **more: Any) -> list[dict[str, Any]]:
        """Inputs of the chain `work`."""
        common = {"journal": str(self.journal), "seconds": 0.01, **more}
        return [{"index": index, **common} for index in range(count)]

    def check(self, deployment: Deployment, batch: Batch) -> None:
        """Fail unless it crashed there, and the batch is whole all the same."""
        assert self.mark.exists(), "nothing crashed"
        verdict = judge(deployment.redis, batch, self.journal)
        assert verdict.good, verdict
        # What had ended and was not yet settled runs again, and nothing else does.
        assert verdict.repeated <= 8


@pytest.mark.parametrize(
    ("point", "pool"),
    [
        *product(["after-claim", "before-settle", "last-settle"], ["asyncio", "prefork"]),
        # Beyond that there is no item that a pool would run in its own way.
        *product(["after-settle", "in-gather", "before-commit", "after-commit"], ["asyncio"]),
    ],
)
def test_a_worker_that_is_killed_there_costs_nothing(
    quick: Deployment, tmp_path: Path, point: str, pool: str
) -> None:
    ground = Ground(tmp_path, point)
    with Crew(quick, pool=pool, env=ground.env):
        batch = quick.client.submit("work", ground.inputs())
        batch.wait(40)
        ground.check(quick, batch)
        wait_until(lambda: not quick.redis.zcard("batchord:active"), what="nothing is left to do")


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_a_sweeper_that_is_killed_amid_its_repairs_is_repaired_too(
    quick: Deployment, tmp_path: Path, pool: str
) -> None:
    ground = Ground(tmp_path, "sweep-mid-page")
    batch = quick.client.submit("work", ground.inputs(seconds=0.05))
    with Crew(quick, pool=pool, env=ground.env) as crew:
        wait_until(lambda: batch.record().running == 4, what="items run")
        crew.kill(0)
        batch.wait(40)
        assert crew.replaced >= 2
    ground.check(quick, batch)


SUBMITTING = """
import json, sys
import tests.chains_for_tests.journal
from batchord.producer import Client

inputs = json.load(open(sys.argv[1]))
print(Client().submit("work", inputs, idempotency_key="key").id, flush=True)
"""


@pytest.mark.parametrize("point", ["before-seal", "after-seal", "half-published"])
def test_a_producer_that_is_killed_there_leaves_a_whole_batch_or_none(
    quick: Deployment, tmp_path: Path, point: str
) -> None:
    ground = Ground(tmp_path, point)
    script, inputs = tmp_path / "submitting.py", tmp_path / "inputs.json"
    script.write_text(SUBMITTING)
    inputs.write_text(json.dumps(ground.inputs()))
    first = quick.start_script(script, str(inputs), env=ground.env)
    assert first.wait() == -9
    with Crew(quick):
        # Anyone who submits again under the same key gets the batch that is there, or a new one.
        batch = quick.client.submit("work", ground.inputs(), idempotency_key="key")
        assert [each.id for each in quick.client.list()] == [batch.id]
        batch.wait(40)
    ground.check(quick, batch)
    assert judge(quick.redis, batch, ground.journal).most_starts == 1


def test_a_canceller_that_is_killed_amid_its_pages_is_helped(
    quick: Deployment, tmp_path: Path
) -> None:
    ground = Ground(tmp_path, "wind-up-mid-page")
    batch = quick.client.submit("work", ground.inputs(2500))
    script = tmp_path / "cancelling.py"
    script.write_text(
        f"from batchord.producer import Client\nClient().retrieve({batch.id!r}).cancel()\n"
    )
    assert quick.start_script(script, env=ground.env).wait() == -9
    assert ground.mark.exists()
    assert batch.record().status is BatchStatus.CANCELLING
    with Crew(quick):
        assert batch.wait(20).status is BatchStatus.CANCELLED
    assert batch.record().request_counts.cancelled == 2500


def test_a_retry_that_is_killed_half_begun_ends_with_what_was_there(
    quick: Deployment, tmp_path: Path
) -> None:
    ground = Ground(tmp_path, "retry-half-begun")
    inputs = ground.inputs()
    inputs[3]["seconds"] = "none"
    with Crew(quick):
        batch = quick.client.submit("work", inputs)
        assert batch.wait(20).request_counts.failed == 1
        script = tmp_path / "retrying.py"
        script.write_text(
            f"from batchord import Client\nClient().retrieve({batch.id!r}).retry_failed()\n"
        )
        assert quick.start_script(script, env=ground.env).wait() == -9
        assert ground.mark.exists()
        wait_until(lambda: batch.record().status is BatchStatus.COMPLETED, what="it ends again")
        assert batch.retry_failed() == 1
        assert batch.wait(20).request_counts.failed == 1
    assert [item.index for item in batch.results() if item.error is not None] == [3]
