"""Identical inputs that wait for each other take no place that another input could have."""

import random
from collections import Counter

import pytest

from batchord.chains import register
from tests.conftest import Deploy
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

SLOTS = 8
TEXTS = [f"text {i}." for i in range(16)]

#: By name, inputs of which a few are distinct.
ORDERS = {
    "one text after the other": [text for text in TEXTS for _ in range(6)],
    "by turns": TEXTS * 6,
    "all of one text first": TEXTS[:1] * 80 + TEXTS[1:],
    "all of one text last": TEXTS[1:] + TEXTS[:1] * 80,
    "in no order": random.Random(1).sample(TEXTS * 6, 96),
}
#: An order, what bounds the batch, and how many calls are in flight then.
ROWS = [
    *((order, None, SLOTS) for order in ORDERS),
    ("one text after the other", 2, 2),
    ("all of one text first", 2, 2),
]


@pytest.fixture(scope="module")
def worker(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Deployment:
    register("answer", lambda value: value, replace=True)
    deployment = deploy_for_module(shard_size=20, sweep_interval=0.5)
    deployment.start_worker(
        concurrency=SLOTS,
        env={
            "BATCHORD_CHAINS": "tests.chains_for_tests.versions",
            **provider_env(provider_for_module),
        },
    )
    return deployment


@pytest.mark.parametrize(("order", "bound", "calls"), ROWS)
def test_as_many_calls_are_in_flight_as_without_them(
    worker: Deployment,
    provider_for_module: OpenAIServer,
    order: str,
    bound: int | None,
    calls: int,
) -> None:
    provider, submit = provider_for_module, worker.client.submit
    provider.reset()
    provider.hang_when(None)
    held = submit("answer", ORDERS[order], dedupe=True, max_concurrency=bound)
    wait_until(lambda: provider.in_flight == calls, what=f"{calls} calls are in flight")
    held.cancel()
    wait_until(
        lambda: held.record().status.ended and provider.in_flight == 0, what="it is cancelled"
    )
    provider.reset()
    batch = submit("answer", ORDERS[order], dedupe=True, max_concurrency=bound)
    assert batch.wait(60).request_counts.succeeded == len(ORDERS[order])
    assert batch.outputs() == [f"echo: {text}" for text in ORDERS[order]]
    assert Counter(request.text for request in provider.requests) == dict.fromkeys(TEXTS, 1)
    assert provider.peak_in_flight <= calls
    # Nothing of those that waited is left.
    names = worker.redis.hkeys(f"batchord:{{{batch.id}}}:firsts")
    assert [name for name in names if "." in name] == []
    assert worker.redis.hget(f"batchord:{{{batch.id}}}:meta", "twins") in (None, "0")
