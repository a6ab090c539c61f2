"""An answer that was paid for is found by the item's next attempt, however the last one ended."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from batchord.chains import register
from batchord.ledger.models import BatchStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import ClaimRequest
from batchord.producer import Batch
from batchord.worker.execution.checkpointer import Checkpointer
from tests.conftest import Deploy
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer, Request

pytestmark = pytest.mark.timeout(120)

N = 200
CHAINS = "tests.chains_for_tests.steps"


@pytest.fixture(scope="module")
def workers(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Deployment:
    """Two workers that know the chains and the provider."""
    for name in ("three-steps", "one-two", "retried-once", "borne"):
        register(name, lambda value: value, replace=True)
    deployment = deploy_for_module(alike_limit=0, shard_size=50)
    env = {"BATCHORD_CHAINS": CHAINS, **provider_env(provider_for_module)}
    started = [deployment.start_worker(concurrency=16, env=env, wait=False) for _ in range(2)]
    for worker in started:
        deployment.wait_for_worker(worker)
    return deployment


def step_of(request: Request) -> str:
    return str(request.body["messages"][0]["content"])


def calls(provider: OpenAIServer) -> dict[str, int]:
    return dict(Counter(step_of(request) for request in provider.requests))


def names(provider: OpenAIServer) -> dict[str, set[str]]:
    """By request, the names under which the provider was asked for it."""
    found: dict[str, set[str]] = defaultdict(set)
    for request in provider.requests:
        found[str(request.body["messages"])].add(request.headers.get("idempotency-key", ""))
    return found


def spread(seed: int, longest: float) -> Callable[[str], float]:
    """Answers take anything up to this, the same at each run of the seed."""
    return lambda text: random.Random(f"{seed} {text}").uniform(0, longest)


@pytest.mark.parametrize(
    ("seed", "longest"),
    [(0, 0.0), (1, 0.0), (2, 0.05), (3, 0.05), (4, 0.1)],
    ids=lambda value: f"{value}",
)
def test_items_whose_last_step_failed_make_no_other_call_again(
    workers: Deployment, provider_for_module: OpenAIServer, seed: int, longest: float
) -> None:
    provider = provider_for_module
    provider.reset()
    provider.delay = spread(seed, longest)
    provider.fail_next(500, match="echo: echo: text", n=N)
    texts = [f"text {i}" for i in range(N)]
    batch = workers.client.submit("three-steps", texts)
    assert batch.wait(60).request_counts.failed == N
    assert calls(provider) == {"one": N, "two": N, "three": N}
    assert batch.retry_failed() == N
    assert batch.wait(60).request_counts.succeeded == N
    assert calls(provider) == {"one": N, "two": N, "three": 2 * N}
    assert batch.outputs() == [f"echo: echo: echo: {text}" for text in texts]
    # Both attempts have named their third call to the provider as the same one.
    assert [len(found) for found in names(provider).values()] == [1] * (3 * N)
    assert len(set.union(*names(provider).values())) == 3 * N


@dataclass(frozen=True)
class End:
    """A way in which attempts end that have paid for answers a moment before."""

    name: str
    chain: str
    #: The answer to the calls that fail.
    status: int
    #: This many items fail once in their second step; None: every call does until it is forgotten.
    failing: int | None
    #: What brings the items back.
    go_on: Callable[[Batch, OpenAIServer], object]

    def begin(self, provider: OpenAIServer) -> None:
        if self.failing is None:
            provider.fail_when(None, status=self.status)
        for i in range(self.failing or 0):
            provider.fail_next(self.status, match=f"echo: text {i}.")


def paused(batch: Batch, provider: OpenAIServer) -> None:
    """Each call of a step is refused for good: the batch waits for a person."""
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it is paused")
    wait_until(lambda: batch.record().running == 0, what="what runs has ended")
    provider.forget_rules()
    batch.resume()


def failed(batch: Batch, provider: OpenAIServer) -> None:
    assert batch.wait(60).request_counts.failed == N
    assert batch.retry_failed() == N


def down(batch: Batch, provider: OpenAIServer) -> None:
    wait_until(lambda: len(provider.requests) > 10, what="it is found to be down")
    provider.forget_rules()


def by_itself(batch: Batch, provider: OpenAIServer) -> None:
    """Nobody has to do anything."""


ENDS = [
    End("failed", "one-two", 500, N, failed),
    End("put off by its chain", "retried-once", 500, N, by_itself),
    End("put off as the provider is down", "borne", 500, None, down),
    End("put off until others tell whose fault it is", "one-two", 403, 1, by_itself),
    End("waits for a person", "one-two", 401, None, paused),
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.name)
def test_however_an_attempt_ends_what_it_was_answered_a_moment_ago_is_found_again(
    workers: Deployment, provider_for_module: OpenAIServer, end: End
) -> None:
    provider = provider_for_module
    provider.reset()
    end.begin(provider)
    batch = workers.client.submit(end.chain, [f"text {i}." for i in range(N)])
    end.go_on(batch, provider)
    assert batch.wait(60).request_counts.succeeded == N
    answered = Counter(step_of(one) for one in provider.requests if one.status == 200)
    assert (answered["one"], answered["two"]) == (N, N)
    of_items = [found for said, found in names(provider).items() if "text" in said]
    assert [len(found) for found in of_items] == [1] * (2 * N)


def test_what_could_not_be_kept_goes_once_more_and_is_kept_once(deployment: Deployment) -> None:
    batch = deployment.client.submit("three-steps", ["text"])
    store = BatchStore(deployment.settings)
    exchange = ItemLeases(store)
    claim_request = ClaimRequest(batch_id=batch.id, index=0, token="first")
    _, [claim] = exchange.swap([], [claim_request])
    assert claim.verdict == "run"

    async def give(keeper: Checkpointer) -> None:
        run = keeper.begin(claim_request, claim)
        assert run.kept is not None
        run.kept.put("one", "1")
        keeper.leave(claim_request, run)
        taken = keeper.take()
        exchange.keep(taken)
        keeper.not_sent(taken)  # its answer was lost
        run.kept.put("two", "2")
        keeper.leave(claim_request, run)
        taken = keeper.take()
        assert [one.steps for one in taken] == ["one 1\n", "two 2\n"]
        exchange.keep(taken)
        keeper.not_sent(taken)
        assert [one.steps for one in keeper.take()] == ["two 2\n"]
        keeper.sent()
        assert keeper.take() == []

    asyncio.run(give(Checkpointer(lambda: None)))
    exchange.release([claim_request])
    _, [claim] = exchange.swap([], [ClaimRequest(batch_id=batch.id, index=0, token="second")])
    assert claim.steps == "one 1\ntwo 2\n"
    store.close()
    batch.cancel()
