"""A fleet at its provider, at the size of real batches: what its server has counted, in minutes.

    BATCHORD_TEST_LONG=1 python -m pytest -s tests/system/test_manners.py

prints what was measured; each of these has a short sister in the ordinary suite.
"""

import os
import sys
import time
from collections import Counter

import pytest

from batchord import Batch, Budget, register
from batchord.ledger.models import BatchStatus
from tests.conftest import Deploy
from tests.support.harness import Deployment, Process, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif("BATCHORD_TEST_LONG" not in os.environ, reason="takes minutes"),
]

SLOTS = 8
WORKERS = 3
CHAINS = "tests.chains_for_tests.basic,tests.chains_for_tests.limited,tests.chains_for_tests.steps"


@pytest.fixture
def fleet(deploy: Deploy, provider: OpenAIServer) -> Deployment:
    """Three workers at their default settings, but for a lease that a test can wait for."""
    for name in ("ask", "limited-cool", "three-steps"):
        register(name, lambda value: value, replace=True)
    deployment = deploy(lease=4, sweep_interval=1)
    for _ in range(WORKERS):
        start(deployment, provider)
    return deployment


def start(deployment: Deployment, provider: OpenAIServer) -> Process:
    env = {"BATCHORD_CHAINS": CHAINS, **provider_env(provider)}
    return deployment.start_worker(concurrency=SLOTS, env=env)


def done(batch: Batch, count: int) -> None:
    wait_until(
        lambda: batch.record().request_counts.done >= count, what=f"{count} are done", timeout=60
    )


def say(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")


def test_storms_of_refusals_fail_no_item_and_waste_few_calls(
    fleet: Deployment, provider: OpenAIServer
) -> None:
    provider.delay = 0.05
    batch = fleet.client.submit("limited-cool", [f"text {i}" for i in range(1500)])
    for count in (200, 600, 1000):
        done(batch, count)
        provider.fail_when(None, status=429, retry_after=2.0)
        time.sleep(1.0)
        provider.forget_rules()
    record = batch.wait(120)
    refused = sum(request.status == 429 for request in provider.requests)
    say(f"1,500 items, 3 storms: {record.request_counts.failed} failed, {refused} calls refused")
    assert record.request_counts.succeeded == 1500
    assert {item.attempts for item in batch.results()} == {1}
    assert refused < 0.05 * 1500


def test_a_key_that_expires_at_item_500_of_10_000_stops_the_batch(
    fleet: Deployment, provider: OpenAIServer
) -> None:
    provider.delay = 0.01
    batch = fleet.client.submit("ask", [f"text {i}" for i in range(10_000)])
    done(batch, 500)
    provider.fail_when(None, status=401)
    began = time.monotonic()
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses")
    seconds = time.monotonic() - began
    wait_until(lambda: batch.record().running == 0, what="nothing runs any more")
    refused = sum(request.status == 401 for request in provider.requests)
    say(f"paused {seconds:.2f} s after the key expired, {refused} calls refused")
    assert seconds < 2
    assert refused < WORKERS * SLOTS + 10
    provider.forget_rules()
    batch.resume()
    assert batch.wait(600).request_counts.succeeded == 10_000
    paid = Counter(request.text for request in provider.requests if request.status == 200)
    assert len(paid) == 10_000
    assert set(paid.values()) == {1}


def test_kills_amid_a_chain_of_three_steps_cost_what_was_in_flight(
    fleet: Deployment, provider: OpenAIServer
) -> None:
    provider.delay = 0.2
    batch = fleet.client.submit("three-steps", [f"text {i}" for i in range(500)])
    kills = 6
    for kill in range(kills):
        done(batch, 60 * (kill + 1))
        fleet.processes[kill].kill()
        start(fleet, provider)
    assert batch.wait(120).request_counts.succeeded == 500
    calls = Counter(request.body["messages"][0]["content"] for request in provider.requests)
    say(f"{kills} kills of {SLOTS} in flight: {dict(calls)} calls for 500 items")
    assert calls["one"] <= 500 + kills * SLOTS
    assert sum(calls.values()) <= 1500 + 2 * kills * SLOTS


def test_a_budget_of_100_000_tokens_stops_a_batch_that_needs_300_000(
    fleet: Deployment, provider: OpenAIServer
) -> None:
    words = "word " * 99
    provider.delay = 0.01
    budget = Budget(tokens=100_000)
    batch = fleet.client.submit("ask", [f"{i} {words}" for i in range(1500)], budget=budget)
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses", timeout=60)
    wait_until(lambda: batch.record().running == 0, what="nothing runs any more")
    usage = batch.record().usage
    assert usage is not None
    spent = usage.total_tokens or 0
    one = spent / (usage.requests or 1)
    say(f"budget 100,000: {spent:,} tokens used, {one:.0f} a call, {WORKERS * SLOTS} in flight")
    assert 100_000 <= spent <= 100_000 + (WORKERS * SLOTS + 1) * one
    batch.resume(budget=Budget(tokens=400_000))
    assert batch.wait(120).request_counts.succeeded == 1500
    paid = Counter(request.text for request in provider.requests)
    assert set(paid.values()) == {1}
