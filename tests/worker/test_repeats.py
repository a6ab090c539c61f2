"""Whatever happens to an item, no call that was answered is made again; its server counts."""

from collections import Counter
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.models import ItemStatus
from tests.conftest import Deploy
from tests.support.harness import Deployment, Process, provider_env, wait_until
from tests.support.openai_server import OpenAIServer, Request

pytestmark = pytest.mark.timeout(90)

SLOTS = 8
CHAINS = "tests.chains_for_tests.steps"
NAMES = ("three-steps", "patient", "retried", "retried-once", "within", "not-paid", "timed-out")


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    for name in NAMES:
        register(name, lambda value: value, replace=True)
    return deploy(lease=2, sweep_interval=0.2, shard_size=20)


def start(deployment: Deployment, provider: OpenAIServer, **env: str) -> Process:
    """Start a worker that knows the chains and the provider."""
    env = {"BATCHORD_CHAINS": CHAINS, **provider_env(provider), **env}
    return deployment.start_worker(concurrency=SLOTS, env=env)


def asked(request: Request) -> str:
    return str(request.body["messages"][-1]["content"])


def calls_of(provider: OpenAIServer) -> Counter[str]:
    """By step, the calls that the server was asked for."""
    return Counter(request.body["messages"][0]["content"] for request in provider.requests)


def answered(provider: OpenAIServer) -> Counter[tuple[str, str]]:
    """By step and text, the calls that the server has answered."""
    return Counter(
        (request.body["messages"][0]["content"], asked(request))
        for request in provider.requests
        if request.status == 200
    )


def test_killed_workers_cost_no_more_than_what_was_in_flight(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    provider.delay = 0.1
    workers = [start(deployment, provider) for _ in range(2)]
    texts = [f"text {i}" for i in range(15 * SLOTS)]
    batch = deployment.client.submit("three-steps", texts)
    kills = 0

    def some_more_done() -> bool:
        return batch.record().request_counts.done >= (2 + 4 * kills) * SLOTS

    for _ in range(2):
        wait_until(some_more_done, what="some more are done")
        workers.pop(0).kill()
        kills += 1
        workers.append(start(deployment, provider))
    batch.wait(60)
    assert batch.outputs() == [f"echo: echo: echo: {text}" for text in texts]
    calls = calls_of(provider)
    n = len(texts)
    assert n <= calls["one"] <= n + kills * SLOTS
    # The call that was in flight, and the one before if it was not kept yet.
    assert sum(calls.values()) <= 3 * n + 2 * kills * SLOTS
    # What was paid is counted, also in attempts that nobody heard of again.
    usage = batch.record().usage
    assert usage is not None
    paid = sum(answered(provider).values())
    assert paid - 2 * kills * SLOTS <= (usage.requests or 0) <= sum(calls.values())


def test_a_worker_that_is_told_to_end_hands_on_what_it_has_paid_for(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    provider.hang_when("echo: text", n=4)
    worker = start(deployment, provider, BATCHORD_SHUTDOWN_GRACE="0.5", REMAP_SIGTERM="SIGQUIT")
    batch = deployment.client.submit("three-steps", [f"text {i}" for i in range(4)])
    wait_until(lambda: calls_of(provider)["two"] == 4, what="all are in their second step")
    worker.stop()
    start(deployment, provider)
    batch.wait(30)
    assert calls_of(provider) == {"one": 4, "two": 8, "three": 4}
    assert [item.attempts for item in batch.results()] == [1] * 4
    assert [item.usage.requests for item in batch.results() if item.usage] == [4] * 4


def test_a_step_that_must_wait_for_long_gives_its_place_to_others(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    start(deployment, provider)
    provider.fail_next(503, match="echo: echo: late", retry_after=30, n=1)
    batch = deployment.client.submit("patient", ["late", *[f"text {i}" for i in range(20)]])
    wait_until(lambda: batch.record().request_counts.done == 20, what="all others are done")
    record = batch.record()
    assert (record.running, record.put_off) == (0, 1)
    late = next(iter(batch.items(0, 1)))
    assert (late.status, late.attempts) == (ItemStatus.QUEUED, 1)
    [due] = deployment.redis.zrange(f"batchord:{{{batch.id}}}:due", 0, -1, withscores=True)
    seconds, micros = deployment.redis.time()
    assert 25_000 < due[1] - (seconds * 1000 + micros / 1000) < 33_001
    # The sweep looks at what is quiet, and takes it for no message that was lost.
    [worker] = deployment.processes
    news = f"batchord:{{{batch.id}}}:events"
    before = deployment.redis.xlen(news)
    wait_until(lambda: deployment.redis.xlen(news) >= before + 2, what="the sweep has looked twice")
    assert "sent again" not in worker.log
    # As if half a minute had passed; another worker does it.
    worker.kill()
    start(deployment, provider)
    deployment.redis.zadd(f"batchord:{{{batch.id}}}:due", {"0": 1})
    batch.wait(20)
    late = next(iter(batch.results()))
    assert (late.output, late.attempts) == ("echo: echo: echo: late", 2)
    assert late.usage is not None
    assert late.usage.requests == 4
    assert calls_of(provider) == {"one": 21, "two": 21, "three": 22}


def test_an_item_is_tried_again_as_its_chain_says_and_goes_on_where_it_was(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    worker = start(deployment, provider)
    texts = [f"text {i}" for i in range(5)]
    batch = deployment.client.submit("retried", texts)
    batch.wait(30)
    assert batch.outputs() == [f"echo: echo: {text}" for text in texts]
    assert [item.attempts for item in batch.results()] == [3] * 5
    assert calls_of(provider) == {"one": 5, "two": 5, "three": 5}
    assert set(answered(provider).values()) == {1}
    assert batch.record().usage == sum_of_items(batch)
    assert "text 1" not in worker.log
    assert worker.log.count("item put off") == 10


def sum_of_items(batch: Any) -> Any:
    usages = [item.usage for item in batch.results()]
    total = usages[0]
    for usage in usages[1:]:
        total += usage
    return total


def test_after_the_last_attempt_the_item_fails_and_retry_failed_goes_on_where_it_was(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    start(deployment, provider)
    provider.fail_next(500, match="echo: bad", n=2)
    batch = deployment.client.submit("retried-once", ["bad", "good"])
    assert batch.wait(20).request_counts.failed == 1
    bad = next(iter(batch.results()))
    assert bad.error is not None
    assert (bad.error.code, bad.attempts) == ("server_error", 2)
    assert calls_of(provider) == {"one": 2, "two": 3}
    assert batch.retry_failed() == 1
    batch.wait(20)
    assert batch.outputs() == ["echo: echo: bad", "echo: echo: good"]
    assert calls_of(provider) == {"one": 2, "two": 4}


def test_what_a_wrong_answer_may_have_spoilt_is_made_again(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    start(deployment, provider)
    provider.fail_next(400, match="echo: bad", n=1)
    batch = deployment.client.submit("retried-once", ["bad"])
    assert batch.wait(20).request_counts.failed == 1
    assert batch.retry_failed() == 1
    assert batch.wait(20).request_counts.succeeded == 1
    assert calls_of(provider) == {"one": 2, "two": 2}


@pytest.mark.parametrize(("chain", "first"), [("within", True), ("not-paid", False)])
def test_calls_within_a_function_and_what_took_long_are_not_made_again_either(
    deployment: Deployment, provider: OpenAIServer, chain: str, first: bool
) -> None:
    worker = start(deployment, provider)
    provider.hang_when("echo: textecho: text" if first else "text", n=1)
    batch = deployment.client.submit(chain, ["text"])
    wait_until(lambda: calls_of(provider)["three"] == 1, what="it is in its last step")
    kept = f"batchord:{{{batch.id}}}:kept"
    outputs = 3 if first else 1  # the function's own, too
    wait_until(
        lambda: (deployment.redis.hget(kept, "0") or "").count("\n") == outputs,
        what="what was given is kept",
    )
    worker.kill()
    start(deployment, provider)
    batch.wait(30)
    assert calls_of(provider) == {"three": 2, **({"one": 1, "two": 1} if first else {})}


def test_an_attempt_that_took_too_long_is_tried_again_if_its_chain_says_so(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    start(deployment, provider)
    # A process's first call takes long: the client is made.
    deployment.client.submit("timed-out", ["warm up"]).wait(30)
    provider.reset()
    provider.hang_when("echo: text", n=1)
    batch = deployment.client.submit("timed-out", ["text"])
    batch.wait(30)
    assert batch.outputs() == ["echo: echo: text"]
    assert calls_of(provider) == {"one": 1, "two": 2}


def test_what_waits_is_cancelled_with_its_batch(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    start(deployment, provider)
    provider.fail_next(503, match="echo: echo: late", retry_after=100, n=1)
    batch = deployment.client.submit("patient", ["late"])
    wait_until(lambda: batch.record().put_off == 1, what="it waits")
    batch.cancel()
    assert batch.wait(10).request_counts.cancelled == 1
    assert batch.record().put_off == 0


def test_each_call_is_named_to_the_provider_the_same_in_each_attempt(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    start(deployment, provider)
    provider.fail_next(500, match="echo: one", n=1)
    batch = deployment.client.submit("retried-once", ["one", "two"])
    batch.wait(20)
    names: dict[str, list[str]] = {}
    for request in provider.requests:
        names.setdefault(request.headers["idempotency-key"], []).append(asked(request))
    assert sorted(map(sorted, names.values())) == [
        ["echo: one", "echo: one"],
        ["echo: two"],
        ["one"],
        ["two"],
    ]
    # One had to be asked twice: its item was put off, and came again.
    assert batch.progress().attempts == {1: 1, 2: 1}
    assert batch.progress().restarts == 1
    indexes = {name.split(":")[1] for name in names}
    assert {name.split(":")[0] for name in names} == {batch.id}
    assert indexes == {"0", "1"}
