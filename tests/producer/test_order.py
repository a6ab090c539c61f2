"""Outputs line up with inputs, whatever ends first, and are read while the batch runs."""

import asyncio
import random
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchord.ledger.errors import ItemNotSucceeded
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.producer import RemoteRunnable
from tests.support.harness import Deployment

pytestmark = pytest.mark.timeout(60)


def naps(count: int, longest: float) -> list[dict[str, Any]]:
    """Inputs whose durations are random, the first one's longest."""
    seconds = [longest, *(random.uniform(0, longest) for _ in range(count - 1))]
    return [{"value": i, "seconds": s} for i, s in enumerate(seconds)]


def test_a_thousand_items_of_random_duration_come_back_in_input_order(shared: Deployment) -> None:
    batch = shared.client.submit("nap", naps(1000, 0.03))
    in_order = list(batch.results())
    assert [item.index for item in in_order] == list(range(1000))
    assert [item.output for item in in_order] == list(range(1000))
    assert batch.outputs() == list(range(1000))
    assert batch.wait(10).status is BatchStatus.COMPLETED
    counts = batch.record().request_counts
    assert (counts.total, counts.succeeded, counts.failed) == (1000, 1000, 0)
    ended = [item.index for item in batch.as_completed()]
    assert sorted(ended) == list(range(1000))
    assert ended != list(range(1000)), "the durations made no difference"
    assert {item.attempts for item in in_order} == {1}
    pids = {log.count("Task batchord.run_items") for _, log in shared.logs()}
    assert 0 not in pids, "one of the two workers did nothing"


def test_results_are_read_while_the_batch_runs(shared: Deployment) -> None:
    inputs = [{"value": i, "seconds": 0.0 if i < 5 else 1.0} for i in range(10)]
    batch = shared.client.submit("nap", inputs)
    results = iter(batch.results())
    first = [next(results).output for _ in range(5)]
    assert first == [0, 1, 2, 3, 4]
    assert batch.record().status is BatchStatus.IN_PROGRESS
    assert [item.output for item in results] == [5, 6, 7, 8, 9]


def test_items_are_given_as_they_complete(shared: Deployment) -> None:
    inputs = [{"value": i, "seconds": 1.2 if i == 0 else 0.0} for i in range(10)]
    batch = shared.client.submit("nap", inputs)
    completed = iter(batch.as_completed())
    first = [next(completed).index for _ in range(9)]
    assert sorted(first) == list(range(1, 10))
    assert batch.record().status is BatchStatus.IN_PROGRESS, (
        "they came only once the slow one had ended"
    )
    assert [item.index for item in completed] == [0]


def test_the_items_as_they_stand_never_wait(shared: Deployment) -> None:
    inputs = [{"value": i, "seconds": 0.0 if i == 0 else 1.0} for i in range(3)]
    batch = shared.client.submit("nap", inputs)
    assert next(iter(batch.results())).index == 0
    first, second, third = batch.items()
    assert first.status is ItemStatus.SUCCEEDED
    assert not second.status.ended
    assert not third.status.ended
    assert second.output is None
    batch.wait(10)
    assert [item.index for item in batch.items(1, 2)] == [1]


async def read_both_ways(shared: Deployment) -> None:
    batch = await shared.client.asubmit("nap", naps(60, 0.05))
    assert [item.output async for item in batch.results()] == list(range(60))
    assert sorted([item.index async for item in batch.as_completed()]) == list(range(60))
    assert await batch.aoutputs() == list(range(60))


def test_async_code_reads_the_same(shared: Deployment) -> None:
    asyncio.run(read_both_ways(shared))


def test_an_async_app_is_never_blocked(shared: Deployment) -> None:
    async def app() -> float:
        worst = 0.0

        async def heartbeat() -> None:
            nonlocal worst
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                worst = max(worst, time.monotonic() - before)

        beating = asyncio.create_task(heartbeat())
        batch = await shared.client.asubmit("nap", naps(100, 0.2))
        found = await shared.client.aretrieve(batch.id)
        outputs = [item.output async for item in found.results()]
        ended = [item.index async for item in found.as_completed()]
        assert outputs == sorted(ended) == list(range(100))
        assert (await found.await_(10)).status is BatchStatus.COMPLETED
        assert await shared.client.alist(limit=1)
        beating.cancel()
        return worst

    assert asyncio.run(app()) < 1.0  # the whole takes longer


def test_a_remote_chain_is_called_as_if_it_were_here(shared: Deployment) -> None:
    chain = RemoteRunnable("double", client=shared.client)
    assert chain.invoke(21) == 42
    assert chain.batch([]) == []
    assert chain.batch([3, 1, 2], {"max_concurrency": 2}) == [6, 2, 4]
    assert sorted(chain.batch_as_completed([3, 1, 2])) == [(0, 6), (1, 2), (2, 4)]
    assert asyncio.run(chain.abatch(range(5))) == [0, 2, 4, 6, 8]
    piped = chain | (lambda number: number + 1)
    assert piped.invoke(1) == 3


def test_a_remote_chain_gives_an_error_in_the_place_of_its_item(shared: Deployment) -> None:
    chain = RemoteRunnable("may-fail", client=shared.client)
    inputs = [{"value": 0}, {"value": 1, "fail": "later"}, {"value": 2}]
    first, error, last = chain.batch(inputs, return_exceptions=True)
    assert (first, last) == (0, 2)
    assert isinstance(error, ItemNotSucceeded)
    assert (error.index, error.status, error.code) == (1, "failed", "rate_limited")
    with pytest.raises(ItemNotSucceeded, match="item 1 failed: rate_limited: slow down"):
        chain.batch(inputs)


PLANS = st.lists(
    st.fixed_dictionaries(
        {
            "value": st.recursive(
                st.none()
                | st.booleans()
                | st.integers(-(2**70), 2**70)
                | st.text(max_size=8)
                | st.floats(allow_nan=False, allow_infinity=False),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=4), inner, max_size=3)
                ),
                max_leaves=6,
            ),
            "seconds": st.sampled_from([0.0, 0.0, 0.01, 0.05]),
            "fail": st.sampled_from([None, None, "later", "chain", "bug"]),
        }
    ),
    min_size=1,
    max_size=40,
)
CODES = {
    "later": "rate_limited",
    "chain": "refusal",
    "bug": "KeyError",
}


@given(plan=PLANS)
@settings(
    max_examples=12,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_outputs_line_up_with_inputs_for_any_mix(
    shared: Deployment, plan: list[dict[str, Any]]
) -> None:
    batch = shared.client.submit("may-fail", plan)
    items = list(batch.results())
    assert len(items) == len(plan)
    for index, (item, asked) in enumerate(zip(items, plan, strict=True)):
        assert item.index == index
        if asked["fail"] is None:
            assert item.status is ItemStatus.SUCCEEDED
            assert item.output == asked["value"]
            assert type(item.output) is type(asked["value"])
        else:
            assert item.status is ItemStatus.FAILED
            assert item.error is not None
            assert item.error.code == CODES[asked["fail"]]
            assert item.output is None
    record = batch.wait(10)
    failures = sum(asked["fail"] is not None for asked in plan)
    assert record.status is BatchStatus.COMPLETED
    assert record.request_counts.failed == failures
    assert record.request_counts.succeeded == len(plan) - failures
    assert sorted(item.index for item in batch.as_completed()) == list(range(len(plan)))
