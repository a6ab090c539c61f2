"""Rate limits across workers: the provider counts what arrives, and knows nothing of the ledger."""

import os
import sys
import time
from itertools import pairwise

import pytest

from batchord import Batch, register
from batchord.chains.ratelimit.limits import BURST
from batchord.ledger.models import BatchStatus
from tests.conftest import Deploy
from tests.support.harness import Deployment, Process, provider_env, wait_until
from tests.support.openai_server import OpenAIServer
from tests.support.traffic import arrivals, most_over, over_since, used

pytestmark = pytest.mark.timeout(60)

CHAINS = "tests.chains_for_tests.limited"
#: A busy machine stalls workers for moments, which are not made up for. How much of a limit is used
#: is seen in the run of three minutes below, and exactly in virtual time (tests/chains).
MOSTLY = 0.5


@pytest.fixture
def provider(provider_for_module: OpenAIServer) -> OpenAIServer:
    provider_for_module.reset()
    provider_for_module.delay = 0.02
    return provider_for_module


def start(
    deployment: Deployment,
    provider: OpenAIServer,
    count: int,
    *,
    concurrency: int = 8,
    pool: str = "asyncio",
) -> list[Process]:
    """Start this many workers."""
    env = {"BATCHORD_CHAINS": CHAINS, **provider_env(provider)}
    workers = [
        deployment.start_worker(concurrency=concurrency, pool=pool, env=env, wait=False)
        for _ in range(count)
    ]
    for worker in workers:
        deployment.wait_for_worker(worker)
    return workers


@pytest.fixture(scope="module")
def three(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Deployment:
    """A deployment with three workers of eight threads."""
    deployment = deploy_for_module(shard_size=20)
    start(deployment, provider_for_module, 3)
    return deployment


def succeeded(batch: Batch, texts: list[str], timeout: float = 30.0) -> None:
    """Check that every item has its own answer, after one attempt."""
    record = batch.wait(timeout)
    assert record.status is BatchStatus.COMPLETED
    assert record.request_counts.failed == 0, [item.error for item in batch.results()]
    assert batch.outputs() == [f"echo: {text}" for text in texts]
    assert {item.attempts for item in batch.results()} == {1}


def requests_of(provider: OpenAIServer) -> list[tuple[float, int]]:
    return [(when, 1) for when, _ in arrivals(provider.requests)]


def test_three_workers_keep_to_requests_a_minute_together(
    three: Deployment, provider: OpenAIServer
) -> None:
    texts = [f"text {i}" for i in range(60)]
    begun = time.monotonic()
    batch = three.client.submit("limited-requests", texts)
    succeeded(batch, texts)
    calls = requests_of(provider)
    assert len(calls) == 60
    assert over_since(begun, calls, 600 * 1.02) <= 600 / 60 * BURST + 1
    assert used(calls, 600) >= MOSTLY
    usage = batch.record().usage
    assert usage is not None
    assert usage.requests == 60
    # All but those of the first burst were held back, each for a tenth of a second at least.
    assert 40 <= (usage.rate_limit_waits or 0) <= 60
    assert (usage.rate_limit_wait_ms or 0) >= 40 * 50


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif("BATCHORD_TEST_LONG" not in os.environ, reason="takes three minutes")
def test_in_no_minute_of_a_long_run_is_the_limit_exceeded(
    three: Deployment,
    provider: OpenAIServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = [f"text {i}" for i in range(1500)]
    began = time.monotonic()
    succeeded(three.client.submit("limited-requests", texts), texts, timeout=200)
    seconds = time.monotonic() - began
    calls = requests_of(provider)
    fullest = max(sum(begin <= when < begin + 60 for when, _ in calls) for begin, _ in calls)
    share = used(calls, 600)
    gaps = [after - before for (before, _), (after, _) in pairwise(calls)]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(calls)} calls in {seconds:.1f} s; the fullest minute has {fullest} of 600; "
            f"{share:.1%} of the limit used; longest gap {max(gaps):.2f} s\n"
        )
    assert len(calls) == 1500
    assert fullest <= 600 * 1.02
    assert share >= 0.95


def test_tokens_a_minute_are_settled_with_what_was_really_used(
    three: Deployment, provider: OpenAIServer
) -> None:
    # Guessed far too low and far too high, by turns.
    words = ("a", "overestimated" * 3)
    texts = [" ".join([str(i), *[words[i % 2]] * 19]) for i in range(100)]
    succeeded(three.client.submit("limited-tokens", texts), texts)
    arrived = arrivals(provider.requests)
    burst = 60_000 / 60 * BURST
    # At first it is unknown how wrong the guesses are, and up to 24 calls are in flight.
    assert most_over(arrived, 60_000 * 1.02, 60) <= burst + 24 * 41
    assert most_over(arrived[24:], 60_000 * 1.02, 60) <= burst + 3 * 41
    assert used(arrived, 60_000) >= MOSTLY


def test_calls_in_flight_are_capped_over_all_workers(
    three: Deployment, provider: OpenAIServer
) -> None:
    provider.delay = 0.1
    texts = [f"text {i}" for i in range(60)]
    succeeded(three.client.submit("limited-in-flight", texts), texts)
    assert provider.peak_in_flight == 4


def test_a_killed_worker_gives_its_places_in_flight_back(
    deploy: Deploy, provider: OpenAIServer
) -> None:
    register("limited-in-flight", lambda value: value, replace=True)
    deployment = deploy(lease=3, sweep_interval=0.2)
    [victim] = start(deployment, provider, 1)
    provider.hang_when("text", n=4)
    texts = [f"text {i}" for i in range(16)]
    batch = deployment.client.submit("limited-in-flight", texts)
    wait_until(lambda: provider.in_flight == 4, what="all places are taken")
    start(deployment, provider, 1)
    victim.kill()
    record = batch.wait(30)
    assert record.request_counts.succeeded == 16
    assert provider.peak_in_flight == 4


def test_a_refusal_cools_down_all_workers_once_and_costs_no_attempt(
    three: Deployment, provider: OpenAIServer
) -> None:
    texts = [f"text {i}" for i in range(150)]
    batch = three.client.submit("limited-cool", texts)
    wait_until(lambda: batch.record().request_counts.succeeded > 40, what="it is under way")
    provider.fail_next(429, retry_after=1.5)
    succeeded(batch, texts)
    [refused] = [request for request in provider.requests if request.status == 429]
    assert refused.finished is not None
    # What was let in a moment before the refusal was known, is on its way.
    known = refused.finished + 0.15
    late = [r for r in provider.requests if known < r.started < refused.finished + 1.5]
    assert late == []
    assert len(provider.requests) == 151
    assert sum(log.count("cooling down") for log in all_logs(three)) == 1


def all_logs(deployment: Deployment) -> list[str]:
    return [process.log for process in deployment.processes]


def test_another_batch_has_its_turn_at_once(three: Deployment, provider: OpenAIServer) -> None:
    large = three.client.submit("limited-turns", ["large"] * 200)
    try:
        wait_until(lambda: large.record().request_counts.succeeded > 8, what="it is under way")
        texts = [f"small {i}" for i in range(4)]
        before = len(provider.requests)
        succeeded(three.client.submit("limited-turns-too", texts), texts)
        # 24 calls of the large batch wait in their slots, and as many tasks in the queue.
        calls = [request.text for request in provider.requests[before:]]
        assert calls.index(max(calls, key=lambda text: text.startswith("small"))) <= 24
        assert len(calls) <= 40
    finally:
        large.cancel()
        large.wait(20)


def test_waiting_is_not_counted_in_the_deadline(three: Deployment, provider: OpenAIServer) -> None:
    texts = [f"text {i}" for i in range(9)]
    succeeded(three.client.submit("limited-in-time", texts), texts)
    arrived = requests_of(provider)
    assert arrived[-1][0] - arrived[0][0] > 2.5


def test_children_of_a_pool_keep_to_it_too(deploy: Deploy, provider: OpenAIServer) -> None:
    register("limited-requests", lambda value: value, replace=True)
    deployment = deploy()
    start(deployment, provider, 1, concurrency=3, pool="prefork")
    texts = [f"text {i}" for i in range(24)]
    begun = time.monotonic()
    succeeded(deployment.client.submit("limited-requests", texts), texts)
    assert over_since(begun, requests_of(provider), 600) <= 600 / 60 * BURST + 2


def test_texts_to_embed_are_limited_too(three: Deployment, provider: OpenAIServer) -> None:
    provider.fail_next(429, retry_after=0.3)
    batch = three.client.submit("limited-embed", [f"text {i}" for i in range(100)])
    assert batch.wait(20).request_counts.succeeded == 100
    assert [request.status for request in provider.requests].count(429) == 1
