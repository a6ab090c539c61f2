"""A producer whose inputs come slowly is alive, and nothing that it has written expires."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.core.message_ids import new_batch_id
from batchord.ledger.storage.batch_store import BatchStore
from batchord.producer import Batch
from batchord.producer import inputs as inputs_module
from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until

pytestmark = pytest.mark.timeout(60)

#: Far below what a submission takes here, which is PACE.
TTL = 1
#: Seconds of silence of a dead producer; a heartbeat comes four times as often.
SILENCE = 2.0
ITEMS = 40


@dataclass(frozen=True, eq=False)
class Pace:
    """Seconds that pass before some of the inputs."""

    name: str
    before: dict[int, float]

    def inputs(self) -> Iterator[int]:
        for n in range(ITEMS):
            time.sleep(self.before.get(n, 0.0))
            yield n


PACES = [
    Pace("one input is late", {25: 3.5}),
    Pace("the last input is late", {ITEMS - 1: 3.5}),
    Pace("steady and slow", dict.fromkeys(range(ITEMS), 0.1)),
]


def _same(value: Any) -> Any:
    return value


@pytest.fixture(scope="module")
def slow(deploy_for_module: Deploy) -> Iterator[Deployment]:
    register("echo", _same, replace=True)
    with pytest.MonkeyPatch.context() as patch:
        # Four blocks.
        patch.setattr(inputs_module, "BLOCK_BYTES", 20)
        yield deploy_for_module(result_ttl=TTL, submit_timeout=SILENCE)


@pytest.fixture(scope="module")
def submitted(slow: Deployment) -> Iterator[dict[Pace, tuple[Future[Batch], Future[Batch]]]]:
    """Each pace, at the same time, and a rival with the same key that takes over from the dead."""

    def submit(pace: Pace, inputs: Any) -> Batch:
        return slow.client.submit(
            "echo",
            inputs,
            custom_ids=map(str, range(ITEMS)),
            idempotency_key=pace.name,
            on_complete={"task": "report", "args": [], "options": {"queue": "reports"}},
        )

    with ThreadPoolExecutor(2 * len(PACES)) as pool:
        first = {pace: pool.submit(submit, pace, pace.inputs()) for pace in PACES}
        names = [slow.client._store.keys.idempotency(pace.name) for pace in PACES]
        wait_until(lambda: slow.redis.exists(*names) == len(PACES), what="all have begun")
        yield {pace: (first[pace], pool.submit(submit, pace, range(ITEMS))) for pace in PACES}


@pytest.mark.parametrize("pace", PACES, ids=lambda pace: pace.name)
def test_it_is_not_taken_for_dead_and_loses_nothing(
    slow: Deployment, submitted: dict[Pace, tuple[Future[Batch], Future[Batch]]], pace: Pace
) -> None:
    first, rival = (future.result(30) for future in submitted[pace])
    assert first.id == rival.id
    reader = slow.client._reader
    items = reader.items_at(first.id, range(ITEMS))
    assert [item.custom_id for item in items] == list(map(str, range(ITEMS)))
    assert reader.inputs(first.id, range(ITEMS)) == list(range(ITEMS))
    # Its callback is owed, its key names it, and nothing of it has an end before it ends.
    names = [key for key in slow.keys_of(first) if key.startswith("batchord:")]
    names.append(slow.client._store.keys.idempotency(pace.name))
    assert any(name.endswith(":outbox") for name in names)
    assert {slow.redis.ttl(name) for name in names} == {-1}


def test_what_a_dead_producer_has_left_expires(deploy: Deploy) -> None:
    deployment = deploy(result_ttl=TTL, submit_timeout=0.1)
    store = BatchStore(deployment.settings)
    batch_id = new_batch_id()
    assert store.take_key("key", batch_id) == batch_id
    assert store.open(batch_id, {"chain": "echo"}, key="key", outbox={"webhook": "https://x"})
    assert store.append(batch_id, 0, ["1", "2"], ["a", "b"]) == 2
    assert store.renew(batch_id, total=2, key="key")
    assert len(deployment.keys_of(batch_id)) == 5
    names = [*deployment.keys_of(batch_id), store.keys.idempotency("key")]
    wait_until(lambda: not deployment.redis.exists(*names), what="all of it has expired")
    store.close()
