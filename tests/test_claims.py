"""What one call of claims or settlements says when two executions mean the same item."""

from collections.abc import Iterator

import pytest

from chains import register
from ledger.exchange import Exchange, Settlement, Wish
from ledger.models import ItemStatus
from ledger.store import Store
from tests.harness import Deployment

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def exchange(deployment: Deployment) -> Iterator[Exchange]:
    """What a worker asks the ledger with."""
    register("echo", str, replace=True)
    store = Store(deployment.settings)
    yield Exchange(store)
    store.close()


def settlement(batch_id: str, token: str, attempt: int) -> Settlement:
    return Settlement(
        batch_id=batch_id,
        index=0,
        token=token,
        shard=0,
        attempt=attempt,
        status=ItemStatus.SUCCEEDED,
        outcome='{"status":"succeeded"}',
        output="1",
    )


def test_of_two_claims_in_one_call_one_gets_the_item(
    deployment: Deployment, exchange: Exchange
) -> None:
    batch = deployment.client.submit("echo", [1, 2])
    wishes = [
        Wish(batch_id=batch.id, index=index, token=token)
        for token in ("one", "two")
        for index in (0, 1)
    ]
    _, claims = exchange.swap([], wishes)
    assert [claim.verdict for claim in claims] == ["run", "run", "held", "held"]


def test_a_late_outcome_is_refused_though_it_is_the_same(
    deployment: Deployment, exchange: Exchange
) -> None:
    batch = deployment.client.submit("echo", [1])
    for token in ("late", "second"):
        _, [claim] = exchange.swap([], [Wish(batch_id=batch.id, index=0, token=token)])
        assert claim.verdict == "run"
        leases = f"batchord:{{{batch.id}}}:leases"
        if token == "late":
            deployment.redis.zadd(leases, {0: 1})  # it is over
    [receipt], _ = exchange.swap([settlement(batch.id, "second", 2)], [])
    assert receipt.recorded
    # A call that is repeated because its answer was lost is told the same once more.
    [again], _ = exchange.swap([settlement(batch.id, "second", 2)], [])
    assert again.recorded
    [late], _ = exchange.swap([settlement(batch.id, "late", 1)], [])
    assert not late.recorded
