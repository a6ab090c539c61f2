"""A script that fails on a damaged batch costs what shares its round trip nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from batchord.chains import Usage, register
from batchord.ledger.models import ItemStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import Checkpoint, ClaimRequest, Settlement
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.damages import DAMAGES, DEEPER
from tests.support.harness import Deployment, lines_of

pytestmark = pytest.mark.timeout(90)

ALL: Final = DAMAGES | DEEPER

#: Which calls about the first page of a damaged batch fail, by the damage.
FAILS: Final = {
    "meta is no hash": {"keep", "settle", "claim"},
    "leases of another type": {"settle", "claim"},
    "statistics of another type": {"settle"},
    "garbled statistics": {"settle"},
    "starts of another type": {"keep", "settle", "claim"},
    "outcomes of another type": {"settle", "claim"},
    "inputs of another type": {"claim"},
    "custom_ids of another type": {"claim"},
    "kept answers of another type": {"keep", "settle", "claim"},
    "garbled usage": {"keep"},
    "garbled count of a shard": {"settle"},
    "shards of another type": {"settle"},
    "garbled start": {"claim"},
}

#: Those damages that are about the first page alone.
OF_A_PAGE: Final = {
    "outcomes of another type",
    "inputs of another type",
    "custom_ids of another type",
}


@pytest.fixture
def item_leases(deployment: Deployment) -> Iterator[ItemLeases]:
    store = BatchStore(deployment.settings)
    yield ItemLeases(store)
    store.close()


def _request(batch: Batch, index: int) -> ClaimRequest:
    return ClaimRequest(batch_id=batch.id, index=index, token="one")


def _settlement(batch: Batch, index: int, shard: int = 0) -> Settlement:
    return Settlement(
        batch_id=batch.id,
        index=index,
        token="one",
        shard=shard,
        attempt=1,
        status=ItemStatus.FAILED,
        outcome='{"status":"failed","error":{"code":"refusal","message":""}}',
        code="refusal",
    )


@pytest.mark.parametrize("name", ALL)
def test_a_call_that_fails_has_its_error_and_the_others_their_answers(
    deployment: Deployment, item_leases: ItemLeases, name: str
) -> None:
    register("echo", lambda value: value, replace=True)
    damaged = deployment.client.submit("echo", range(PAGE_SIZE + 10))
    neighbour = deployment.client.submit("echo", range(10))
    both = (damaged, neighbour)
    _, begun = item_leases.swap([], [_request(batch, index) for batch in both for index in (0, 1)])
    assert {claim.verdict for claim in begun} == {"run"}
    store = BatchStore(deployment.settings)
    keys = store.keys.batch(damaged.id)
    ALL[name](deployment.redis, keys)

    usage = Usage(requests=1)
    checkpoints = [
        Checkpoint(claim_request=_request(batch, 0), steps="step", usage=usage) for batch in both
    ]
    settlements = [_settlement(batch, 1) for batch in both]
    claim_requests = [
        _request(damaged, 2),
        _request(neighbour, 2),
        _request(damaged, PAGE_SIZE + 2),
    ]
    receipts, claims = item_leases.swap(settlements, claim_requests, checkpoints)

    fails = FAILS.get(name, set())
    assert (receipts[0].error is not None) == ("settle" in fails)
    assert (claims[0].error is not None) == ("claim" in fails)
    assert (claims[0].verdict == "unreadable") == ("claim" in fails)
    # The neighbour's, in order and whole.
    assert (receipts[1].recorded, receipts[1].error) == (True, None)
    assert (claims[1].verdict, claims[1].attempt, claims[1].input) == ("run", 1, "2")
    assert deployment.redis.hget(store.keys.batch(neighbour.id).kept, "0") == "step"
    if name in OF_A_PAGE:
        assert (claims[2].verdict, claims[2].input) == ("run", str(PAGE_SIZE + 2))
    assert set(item_leases.keep(checkpoints)) == ({damaged.id} if "keep" in fails else set())
    # What else goes for many batches at a time.
    item_leases.beat_all({batch.id: {0: "one"} for batch in both})
    assert item_leases.beat_all({neighbour.id: {0: "one", 5: "one"}}) == {neighbour.id: [5]}
    item_leases.stopping([damaged.id, neighbour.id])
    assert item_leases.release([_request(damaged, 0), _request(neighbour, 0)]) >= 1
    store.close()
    deployment.redis.delete(*deployment.keys_of(damaged))
    store.forget(damaged.id)
    neighbour.cancel()


def test_a_worker_starts_the_items_beside_damaged_batches_once(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy(lease=3.0, sweep_interval=0.2)
    register("journal", lambda value: value, replace=True)
    damaged, neighbours = {}, []
    for name in ALL:
        # By turns: what is claimed and settled in one round trip is of both.
        inputs = [_input(tmp_path, name) for _ in range(3)]
        damaged[name] = deployment.client.submit("journal", inputs)
        inputs = [_input(tmp_path, f"{len(damaged)} {i}") for i in range(3)]
        neighbours.append(deployment.client.submit("journal", inputs))
    store = BatchStore(deployment.settings)
    for name, batch in damaged.items():
        ALL[name](deployment.redis, store.keys.batch(batch.id))

    worker = deployment.start_worker(concurrency=32)
    for batch in neighbours:
        batch.wait(30)
    for batch in neighbours:
        assert {(item.status, item.attempts) for item in batch.items()} == {("succeeded", 1)}
    started = [line for line in lines_of(tmp_path / "journal") if line not in ALL]
    assert sorted(started) == sorted(f"{n + 1} {i}" for n in range(len(ALL)) for i in range(3))
    assert worker.alive
    worker.kill()
    for batch in damaged.values():
        deployment.redis.delete(*deployment.keys_of(batch))
        store.forget(batch.id)
    store.close()


def _input(folder: Path, value: str) -> dict[str, str]:
    return {"path": str(folder / "journal"), "value": value}
