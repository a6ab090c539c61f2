"""Claims and settlements of one call in which two executions mean the same item."""

from collections.abc import Iterator

import pytest

from batchord.chains import Usage, register
from batchord.ledger.budget import Budget
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import Checkpoint, ClaimRequest, Settlement
from tests.support.harness import Deployment

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def item_leases(deployment: Deployment) -> Iterator[ItemLeases]:
    """A request of a worker to the ledger."""
    register("echo", str, replace=True)
    store = BatchStore(deployment.settings)
    yield ItemLeases(store)
    store.close()


def settlement(
    batch_id: str, token: str, attempt: int, *, index: int = 0, tokens: int = 0
) -> Settlement:
    return Settlement(
        batch_id=batch_id,
        index=index,
        token=token,
        shard=0,
        attempt=attempt,
        status=ItemStatus.SUCCEEDED,
        outcome='{"status":"succeeded"}',
        output="1",
        usage={"output_tokens": tokens},
    )


def test_of_two_claims_in_one_call_one_gets_the_item(
    deployment: Deployment, item_leases: ItemLeases
) -> None:
    batch = deployment.client.submit("echo", [1, 2])
    claim_requests = [
        ClaimRequest(batch_id=batch.id, index=index, token=token)
        for token in ("one", "two")
        for index in (0, 1)
    ]
    _, claims = item_leases.swap([], claim_requests)
    assert [claim.verdict for claim in claims] == ["run", "run", "held", "held"]


def test_a_late_outcome_is_refused_though_it_is_the_same(
    deployment: Deployment, item_leases: ItemLeases
) -> None:
    batch = deployment.client.submit("echo", [1])
    for token in ("late", "second"):
        _, [claim] = item_leases.swap([], [ClaimRequest(batch_id=batch.id, index=0, token=token)])
        assert claim.verdict == "run"
        leases = f"batchord:{{{batch.id}}}:leases"
        if token == "late":
            deployment.redis.zadd(leases, {0: 1})  # it is over
    [receipt], _ = item_leases.swap([settlement(batch.id, "second", 2)], [])
    assert receipt.recorded
    # A call that is repeated because its answer was lost is told the same once more.
    [again], _ = item_leases.swap([settlement(batch.id, "second", 2)], [])
    assert again.recorded
    [late], _ = item_leases.swap([settlement(batch.id, "late", 1)], [])
    assert not late.recorded


def test_a_budget_stops_what_has_not_begun_and_never_a_batch_whose_rest_runs(
    deployment: Deployment, item_leases: ItemLeases
) -> None:
    for begun, stopped in ((3, BatchStatus.PAUSED), (4, BatchStatus.IN_PROGRESS)):
        batch = deployment.client.submit("echo", [1, 2, 3, 4], budget=Budget(tokens=10**15))
        item_leases.swap(
            [],
            [ClaimRequest(batch_id=batch.id, index=index, token="one") for index in range(begun)],
        )
        for index, tokens in enumerate((10**15 - 1, 1)):
            assert batch.record().status is BatchStatus.IN_PROGRESS
            item_leases.swap([settlement(batch.id, "one", 1, index=index, tokens=tokens)], [])
        assert batch.record().status is stopped
        usage = batch.record().usage
        assert usage is not None
        assert usage.output_tokens == 10**15
        batch.cancel()


def test_a_number_that_no_counter_holds_breaks_nothing(
    deployment: Deployment, item_leases: ItemLeases
) -> None:
    batch = deployment.client.submit("echo", [1])
    item_leases.swap([], [ClaimRequest(batch_id=batch.id, index=0, token="one")])
    [receipt], _ = item_leases.swap([settlement(batch.id, "one", 1, tokens=10**30)], [])
    assert (receipt.recorded, receipt.shard_complete) == (True, True)
    assert batch.record().request_counts.done == 1


def test_what_an_item_that_is_handed_back_has_used_is_counted_once(
    deployment: Deployment, item_leases: ItemLeases
) -> None:
    batch = deployment.client.submit("echo", [1])
    claim_request = ClaimRequest(batch_id=batch.id, index=0, token="one")
    item_leases.swap([], [claim_request])
    used = Checkpoint(claim_request=claim_request, steps="", usage=Usage(requests=2))
    for released in (1, 0):
        # The answers were lost, and the calls are repeated.
        item_leases.keep([used])
        assert item_leases.release([claim_request]) == released
    assert batch.record().usage == Usage(requests=2)
    _, [claim] = item_leases.swap([], [ClaimRequest(batch_id=batch.id, index=0, token="two")])
    assert Usage.model_validate_json(claim.usage) == Usage(requests=2)
