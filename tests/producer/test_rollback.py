"""The server goes back while a producer writes: the batch is whole, or there is no batch."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.errors import BatchAborted, InputsLost, UnknownBatch
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.lifecycle.completion_callback import callback_task_id
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.producer import Batch, recording
from batchord.producer import inputs as inputs_module
from batchord.producer.submission import submit
from batchord.producer.submit_options import Submission
from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until
from tests.support.rewinding import Point, RewindingStore

pytestmark = pytest.mark.timeout(120)

#: Queue of what the ends of batches call.
CALLED = "called"
ITEMS = 40
#: Characters of a block: four of them have all inputs.
BLOCK = 20
#: Back to before the submission.
ALL = 99

#: Each must end as if nothing had been.
SUBMISSIONS = [
    Point("open", 1, 1),
    Point("append", 1, 1),
    Point("append", 1, ALL),
    Point("append", 2, 1),
    Point("append", 3, 2),
    Point("append", 3, ALL),
    Point("append", 4, 1),
    Point("append", 4, 3),
    Point("append", 4, ALL),
    Point("seal", 1, 1),
    Point("seal", 1, 2),
    Point("seal", 1, ALL),
    Point("next_shard", 1, 1),
    Point("next_shard", 1, 3),
    Point("shard_published", 1, 1),
    Point("shard_published", 1, 2),
    Point("shard_published", 1, 4),
    Point("shard_published", 1, ALL),
    Point("next_shard", 2, ALL),
]

RETRIES = [
    Point("retry_begin", 1, 1),
    Point("retry_shard", 1, 1),
    Point("retry_shard", 1, 2),
    Point("retry_shard", 2, 1),
    Point("retry_shard", 2, 2),
    Point("retry_shard", 2, 3),
]


def _same(value: Any) -> Any:
    return value


@dataclass
class Rig:
    """A deployment, and what is submitted to it while its server goes back."""

    deployment: Deployment

    def submit(self, point: Point, **options: Any) -> str:
        """Submit under a server that goes back at this point; return the batch's id."""
        what = {
            "chain": "echo",
            "inputs": range(ITEMS),
            "custom_ids": [f"{point} {n}" for n in range(ITEMS)],
            "idempotency_key": str(point),
            "on_complete": {"task": "report", "args": [], "options": {"queue": CALLED}},
        }
        with (
            closing(
                RewindingStore(self.deployment.settings, point, then=options.pop("then", None))
            ) as store,
            closing(create_app(self.deployment.settings)) as app,
        ):
            try:
                return submit(app, store, Submission(**{**what, **options}))
            finally:
                assert store.struck, "the server did not go back"

    @contextmanager
    def frozen_worker(self) -> Iterator[None]:
        """Have the worker stand still: nothing runs again before all of it is queued."""
        [worker] = self.deployment.processes
        os.killpg(worker.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(worker.pid, signal.SIGCONT)

    def known(self) -> set[str]:
        """The batches that have a key, and the idempotency keys. Others may run meanwhile."""
        redis = self.deployment.redis
        ids = {name.split(":")[1] for name in redis.keys("batchord:{*")}
        return {*ids, *redis.keys("batchord:key:*")}


@pytest.fixture(scope="module")
def rig(deploy_for_module: Deploy) -> Iterator[Rig]:
    register("echo", _same, replace=True)
    register("may-fail", _same, replace=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs_module, "BLOCK_BYTES", BLOCK)
        deployment = deploy_for_module(alike_limit=0, lease=2.0, sweep_interval=0.3)
        # So that it is no leak: what is put into it later expires with it.
        deployment.redis.rpush(CALLED, "first")
        deployment.redis.expire(CALLED, 3600)
        yield Rig(deployment)


@pytest.fixture(scope="module")
def submitted(rig: Rig) -> dict[Point, str]:
    """Results of each submission, all made before a worker has begun."""
    return {point: rig.submit(point) for point in SUBMISSIONS}


@pytest.fixture(scope="module")
def worked_off(rig: Rig, submitted: dict[Point, str]) -> dict[Point, Batch]:
    """The batches, while a worker works them off."""
    rig.deployment.start_worker()
    return {point: rig.deployment.client.retrieve(each) for point, each in submitted.items()}


@pytest.mark.parametrize("point", SUBMISSIONS, ids=str)
def test_a_submission_goes_on_where_the_server_is(
    rig: Rig, worked_off: dict[Point, Batch], point: Point
) -> None:
    batch = worked_off[point]
    batch.wait(60)
    assert [(item.custom_id, item.output) for item in batch.results()] == [
        (f"{point} {n}", n) for n in range(ITEMS)
    ]
    called = f'"{callback_task_id(batch.id)}"'
    wait_until(
        lambda: sum(called in text for text in rig.deployment.redis.lrange(CALLED, 0, -1)) == 1,
        what="its end is told, once",
    )
    again = rig.deployment.client.submit(
        "echo",
        range(ITEMS),
        custom_ids=[f"{point} {n}" for n in range(ITEMS)],
        idempotency_key=str(point),
    )
    assert again.id == batch.id


@pytest.mark.parametrize("point", RETRIES, ids=str)
@pytest.mark.usefixtures("worked_off")
def test_a_retry_goes_on_where_the_server_is(rig: Rig, point: Point) -> None:
    inputs = [{"value": n, "fail": "bug"} if n % 2 == 0 else {"value": n} for n in range(6)]
    # Six shards: two a round trip, and three round trips.
    batch = rig.deployment.client.submit("may-fail", inputs, items_per_task=1, max_concurrency=1)
    assert batch.wait(60).request_counts.failed == 3
    with (
        rig.frozen_worker(),
        pytest.MonkeyPatch.context() as patch,
        closing(RewindingStore(rig.deployment.settings, point)) as store,
        closing(create_app(rig.deployment.settings)) as app,
    ):
        patch.setattr("batchord.ledger.storage.batch_store._SHARDS_AT_ONCE", 2)
        assert BatchControl(app, store).retry_failed(batch.id) == 3
        assert store.struck, "the server did not go back"
    batch.wait(60)
    reader = BatchReader(rig.deployment.client._store)
    assert [len(reader.history(batch.id, n)) for n in range(6)] == [1, 0, 1, 0, 1, 0]
    assert batch.record().request_counts.failed == 3
    assert [item.index for item in batch.results()] == list(range(6))


def test_what_is_not_kept_any_more_is_refused_and_leaves_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "KEPT", 1)
    before = rig.known()
    with pytest.raises(BatchAborted, match="went back.*submit again"):
        rig.submit(Point("append", 3, 2), idempotency_key="not kept")
    assert rig.known() <= before


@pytest.mark.parametrize("lost", ["in:0", "id:0", "custom-ids", "outbox"])
def test_a_batch_that_lacks_a_key_is_not_accepted(rig: Rig, lost: str) -> None:
    redis = rig.deployment.redis
    before = rig.known()

    def lose() -> None:
        names = redis.keys(f"batchord:{{*}}:{lost}")
        [key] = [name for name in names if name.split(":")[1] not in before]
        redis.delete(key)

    with pytest.raises(InputsLost, match=r"Redis has lost .*noeviction.*submit again"):
        rig.submit(Point("append", 4, 0), then=lose, idempotency_key=f"lacks {lost}")
    assert rig.known() <= before


def test_who_takes_the_key_meanwhile_has_the_batch(rig: Rig) -> None:
    theirs: list[Batch] = []

    def take() -> None:
        theirs.append(rig.deployment.client.submit("echo", **same, idempotency_key="meanwhile"))

    same: dict[str, Any] = {"inputs": range(ITEMS), "custom_ids": [*map(str, range(ITEMS))]}
    point = Point("append", 3, ALL)
    ours = rig.submit(point, then=take, **same, idempotency_key="meanwhile")
    assert [ours] == [batch.id for batch in theirs]
    theirs[0].cancel()


def test_a_seal_that_is_undone_later_leaves_no_batch(deploy: Deploy) -> None:
    """Nobody is there any more who could write it again: as if it had not been submitted."""
    deployment = deploy(submit_timeout=0.5, sweep_interval=0.1)
    register("echo", _same, replace=True)
    batch = deployment.client.submit("echo", range(3), idempotency_key="key")
    meta = f"batchord:{{{batch.id}}}:meta"
    deployment.lose_messages()
    deployment.redis.hset(meta, "status", "validating")
    deployment.start_worker()
    with pytest.raises(UnknownBatch, match="submit it again"):
        batch.wait(30)
    again = deployment.client.submit("echo", range(3), idempotency_key="key")
    assert again.id != batch.id
    assert again.outputs() == [0, 1, 2]
