"""Providers that are down, or bear less than they are asked for: no item fails, with few calls."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.models import BatchStatus
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.providers.scarce import Scarce, a_second, in_flight
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

WORKERS = 2
SLOTS = 8
#: Seconds that an outage lasts here.
OUTAGE = 2.0

NAMES = (
    *("ask", "ask-once", "ask-other", "ask-impatient", "ask-of-few", "ask-slowly", "ask-of-eight"),
    *("embed", "post", "langchain", "langchain-function", "langchain-of-few"),
)


@pytest.fixture(scope="module")
def provider_for_outages() -> Iterator[Scarce]:
    with Scarce() as server:
        yield server


@pytest.fixture
def provider(provider_for_outages: Scarce) -> Scarce:
    provider_for_outages.reset()
    provider_for_outages.bears = lambda _: True
    provider_for_outages.retry_after = None
    provider_for_outages.delay = 0.02
    return provider_for_outages


@pytest.fixture(scope="module")
def fleet(deploy_for_module: Deploy, provider_for_outages: Scarce) -> Deployment:
    for name in NAMES:
        register(name, lambda value: value, replace=True)
    deployment = deploy_for_module(shard_size=50, sweep_interval=0.5)
    env = {
        **provider_env(provider_for_outages),
        "BATCHORD_CHAINS": "tests.providers.outage_chains",
    }
    workers = [
        deployment.start_worker(concurrency=SLOTS, env=env, wait=False) for _ in range(WORKERS)
    ]
    for worker in workers:
        deployment.wait_for_worker(worker)
    return deployment


@dataclass(frozen=True, kw_only=True)
class Outage:
    """An outage: the answer to every call, and the chain that calls."""

    name: str
    begin: Callable[[OpenAIServer], None]
    chain: str = "ask"
    #: Whether it is there before the batch is.
    from_the_start: bool = False


def fails(status: int) -> Callable[[OpenAIServer], None]:
    return lambda server: server.fail_when(None, status=status)


# fmt: off
OUTAGES = [
    Outage(name="503, one try", begin=fails(503), chain="ask-once"),
    Outage(name="503 from the start", begin=fails(503), from_the_start=True),
    Outage(name="429 without Retry-After", begin=fails(429)),
    Outage(name="connections dropped", begin=lambda server: server.drop_when(None)),
    Outage(name="no answers", begin=lambda server: server.hang_when(None)),
    Outage(name="500, embeddings", begin=fails(500), chain="embed"),
    Outage(name="502, a file of requests", begin=fails(502), chain="post"),
    Outage(name="503, LangChain", begin=fails(503), chain="langchain"),
    Outage(name="no answers, LangChain", begin=lambda s: s.hang_when(None), chain="langchain"),
    Outage(name="503, a function of LangChain's", begin=fails(503), chain="langchain-function"),
]
# fmt: on


def inputs_of(chain: str, count: int) -> list[Any]:
    texts = [f"text {i}" for i in range(count)]
    if chain != "post":
        return texts
    return [
        {
            "url": "/v1/chat/completions",
            "body": {"model": "test-model", "messages": [{"role": "user", "content": text}]},
        }
        for text in texts
    ]


def succeeded(batch: Batch, seconds: float = 60) -> None:
    record = batch.wait(seconds)
    assert record.status is BatchStatus.COMPLETED
    assert record.request_counts.failed == 0, [i.error for i in batch.results() if i.error]
    assert {item.attempts for item in batch.results()} == {1}, "it has cost nobody an attempt"


@pytest.mark.parametrize("row", OUTAGES, ids=lambda row: row.name)
def test_an_outage_fails_no_item_and_costs_few_calls(
    fleet: Deployment, provider: Scarce, row: Outage
) -> None:
    count = 200
    if row.from_the_start:
        row.begin(provider)
    batch = fleet.client.submit(row.chain, inputs_of(row.chain, count))
    if not row.from_the_start:
        wait_until(lambda: batch.record().request_counts.done > 20, what="it is under way")
        row.begin(provider)
    before, began = len(provider.requests), time.monotonic()
    time.sleep(OUTAGE)
    during = len(provider.requests) - before
    provider.forget_rules()
    succeeded(batch)
    # Those in flight, and then one at a time.
    assert during <= 2 * WORKERS * SLOTS + OUTAGE / 0.3
    assert time.monotonic() - began < OUTAGE + 30


BEARS = [
    # The chain, what is borne, Retry-After, and the share that may be refused. In virtual time
    # (tests/chains/test_providers_in_time.py) it is half of that: a busy machine adds to it.
    ("ask-of-few", in_flight(4), None, 0.10),
    ("ask-slowly", a_second(20), None, 0.15),
    ("ask-of-eight", in_flight(8), 0.5, 0.10),
]


@pytest.mark.parametrize(
    ("chain", "bears", "retry_after", "share"),
    BEARS,
    ids=["4 in flight", "20 a second", "8 in flight, says when"],
)
def test_what_a_provider_bears_need_not_be_known(
    fleet: Deployment,
    provider: Scarce,
    chain: str,
    bears: Callable[[Scarce], bool],
    retry_after: float | None,
    share: float,
) -> None:
    provider.bears, provider.retry_after = bears, retry_after
    provider.delay = 0.05
    batch = fleet.client.submit(chain, [f"text {i}" for i in range(300)])
    succeeded(batch)
    refused = sum(request.status == 429 for request in provider.requests)
    assert refused < share * 300, f"{refused} of {len(provider.requests)} calls were refused"


def test_an_outage_that_is_longer_than_is_borne_pauses_the_batch(
    fleet: Deployment, provider: Scarce
) -> None:
    provider.fail_when(None, status=503)
    batch = fleet.client.submit("ask-impatient", inputs_of("ask-impatient", 100))
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses", timeout=30)
    wait_until(lambda: batch.record().running == 0, what="nothing runs any more", timeout=30)
    reason = batch.record().reason
    assert reason is not None
    assert reason.code == "server_error"
    assert "told to fail (the provider has been down for" in reason.message
    assert len(provider.requests) <= 2 * WORKERS * SLOTS + 10
    provider.forget_rules()
    batch.resume()
    succeeded(batch)


def test_items_that_wait_for_a_provider_hold_no_slots(fleet: Deployment, provider: Scarce) -> None:
    provider.fail_when("text", status=503)
    provider.fail_when("Say: ok", status=503)
    waiting = fleet.client.submit("ask", inputs_of("ask", 4 * WORKERS * SLOTS))
    wait_until(lambda: len(provider.requests) >= 5, what="it is found to be down", timeout=30)
    other = fleet.client.submit("ask-other", [f"other {i}" for i in range(40)])
    succeeded(other)
    assert waiting.record().request_counts.done == 0
    provider.forget_rules()
    succeeded(waiting)


@pytest.mark.parametrize("chain", ["ask-once", "langchain"])
def test_an_item_that_always_fails_ends_with_its_error_though_no_other_tells(
    fleet: Deployment, provider: Scarce, chain: str
) -> None:
    provider.fail_when("text 7", status=500)
    batch = fleet.client.submit(chain, ["text 7"])
    assert batch.wait(60).status is BatchStatus.COMPLETED
    [item] = batch.results()
    assert item.error is not None
    assert item.error.code == "server_error"
    # It, and the same once more: a small call was answered before, and another one after.
    assert [request.text for request in provider.requests] == ["text 7", "Say: ok"] * 2


def test_refused_connections_fail_no_item(fleet: Deployment, provider: Scarce) -> None:
    batch = fleet.client.submit("ask-once", inputs_of("ask-once", 200))
    wait_until(lambda: batch.record().request_counts.done > 20, what="it is under way")
    provider.refuse_connections(OUTAGE)
    succeeded(batch)
