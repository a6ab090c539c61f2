"""Costs, budgets and forecasts of a batch: with real workers and a provider."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchord import Budget, Estimate, ResumeRefused
from batchord.chains import Usage, register
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.cli_harness import CHAINS, Shell, results
from tests.support.harness import Deployment, provider_env, refused, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(60)

SLOTS = 8
#: Of "ask" with one word: two tokens in at 2, three out at 10 dollars a million.
TOKENS, NANOS = 5, 34_000
PRICES = '{"test-model": {"input": 2, "cached_input": 0.5, "output": 10}}'


@pytest.fixture
def provider(provider_for_module: OpenAIServer) -> OpenAIServer:
    provider_for_module.reset()
    provider_for_module.delay = 0.01
    return provider_for_module


@pytest.fixture(scope="module")
def priced(
    deploy_for_module: Deploy,
    provider_for_module: OpenAIServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Deployment:
    """A deployment with a price table and one worker."""
    path = tmp_path_factory.mktemp("prices") / "prices.json"
    path.write_text(PRICES)
    deployment = deploy_for_module(prices=path, shard_size=20, sweep_interval=0.2)
    deployment.start_worker(concurrency=SLOTS, env=provider_env(provider_for_module))
    return deployment


@pytest.fixture
def shell(priced: Deployment, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "shell", BATCHORD_REDIS_URL=priced.url)
    yield shell
    shell.close()


def words(count: int) -> list[str]:
    return [f"word{i}" for i in range(count)]


def usage_of(batch: Batch) -> Usage:
    return batch.record().usage or Usage()


def paused(batch: Batch) -> BatchRecord:
    """Wait until the batch is paused and nothing runs any more."""
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses")
    wait_until(lambda: batch.record().running == 0, what="nothing runs any more")
    return batch.record()


def reason_of(record: BatchRecord) -> tuple[str, str]:
    assert record.reason is not None
    return record.reason.code, record.reason.message


def paid(provider: OpenAIServer) -> Counter[str]:
    """How often each word was answered."""
    return Counter(
        request.body["messages"][-1]["content"].removeprefix("Say ")
        for request in provider.requests
        if request.status == 200
    )


def test_items_and_batch_have_their_cost_failed_answers_and_cached_tokens_included(
    priced: Deployment, provider: OpenAIServer
) -> None:
    provider.cached_tokens = 1
    provider.fail_next(500, match="word1")
    provider.refuse_when("word2")
    provider.fail_when("word3", status=400)
    batch = priced.client.submit("ask", words(5))
    usage = batch.wait(20).usage
    costs = [None if item.usage is None else item.usage.cost_nanos for item in batch.results()]
    # One token at 0.5, one at 2, three at 10 dollars a million; a refusal is eight words.
    one, refusal = 500 + 2_000 + 3 * 10_000, 500 + 2_000 + 8 * 10_000
    assert costs == [one, one, refusal, None, one]
    assert usage is not None
    assert (usage.requests, usage.cached_input_tokens) == (6, 4)
    assert (usage.cost_nanos, usage.cost_usd) == (3 * one + refusal, (3 * one + refusal) / 1e9)
    dumped = batch.record().model_dump(mode="json")["usage"]
    assert dumped["cost_usd"] == usage.cost_usd


#: How a batch is submitted, its words, and how many of them a call is made for.
FREE: dict[str, tuple[dict[str, Any], list[str], int]] = {
    "the cache has all": ({"cache": True}, ["known"] * 3, 0),
    "the cache has some": ({"cache": True}, ["known", "new", "known"], 1),
    "all are alike": ({"dedupe": True}, ["alike"] * 3, 1),
    "alike, and in the cache": ({"dedupe": True, "cache": True}, ["known"] * 3, 0),
}


@pytest.mark.parametrize("name", FREE)
def test_what_was_paid_for_elsewhere_costs_nothing_and_not_an_unknown_sum(
    priced: Deployment, provider: OpenAIServer, name: str
) -> None:
    options, texts, calls = FREE[name]
    suffix = name.replace(" ", "-")
    texts = [f"{text}-{suffix}" for text in texts]
    if "cache" in options:
        priced.client.submit("ask", [f"known-{suffix}"], cache=True).wait(20)
    provider.reset()
    batch = priced.client.submit("ask", texts, **options)
    usage = batch.wait(20).usage
    assert usage is not None
    assert len(provider.requests) == (usage.requests or 0) == calls
    items = list(batch.results())
    costs = [-1 if item.usage is None else item.usage.cost_nanos for item in items]
    paid_for = [cost for cost in costs if cost]
    assert (costs.count(0), len(paid_for)) == (3 - calls, calls)
    assert usage.cost_usd == sum(filter(None, costs)) / 1e9
    assert all(item.cached or item.same_as is not None for item in items if item.usage == FREE_USE)


FREE_USE = Usage(requests=0, cost_nanos=0)


def test_answers_that_are_asked_for_again_are_paid_for(
    priced: Deployment, provider: OpenAIServer
) -> None:
    provider.garbage_when("again", n=1)
    provider.garbage_when("never")
    batch = priced.client.submit("ask-typed", ["at once", "once again", "never"])
    usage = batch.wait(20).usage
    assert batch.record().request_counts.failed == 1
    assert usage is not None
    assert usage.requests == len(provider.requests) == 1 + 2 + 3
    expected = 2_000 * (usage.input_tokens or 0) + 10_000 * (usage.output_tokens or 0)
    assert usage.cost_nanos == expected


def test_a_model_without_a_price_makes_the_sum_unknown_and_not_too_small(
    priced: Deployment, provider: OpenAIServer
) -> None:
    provider.answers_as = {"word1": "another-model", "word2": "test-model-2026-01-01"}
    batch = priced.client.submit("ask", words(3))
    usage = batch.wait(20).usage
    assert [item.usage.cost_usd for item in batch.results() if item.usage] == [
        NANOS / 1e9,
        None,
        NANOS / 1e9,
    ]
    assert usage is not None
    assert (usage.cost_usd, usage.cost_nanos, usage.unpriced_requests) == (None, 2 * NANOS, 1)


def test_what_was_used_before_the_batch_had_to_pause_is_counted(
    priced: Deployment, provider: OpenAIServer
) -> None:
    provider.fail_when("echo:", status=401)
    batch = priced.client.submit("ask-twice", words(1))
    record = paused(batch)
    assert reason_of(record)[0] == "authentication_error"
    # One answered call of one word in and two out, and two that were refused: the second tells that
    # it is not this item's fault alone.
    cost = 2_000 + 2 * 10_000
    first = Usage(requests=3, input_tokens=1, output_tokens=2, cost_nanos=cost)
    assert record.usage is not None
    assert record.usage.counts() == first.counts() | {
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
    }
    provider.forget_rules()
    batch.resume()
    assert batch.wait(20).status is BatchStatus.COMPLETED
    usage = usage_of(batch)
    # The first call was answered, and is not made again.
    assert usage.requests == len(provider.requests) == 4
    assert usage.cost_nanos == cost + (2 * 2_000 + 3 * 10_000)


def test_what_a_worker_that_must_end_has_used_is_counted(
    deploy: Deploy, provider: OpenAIServer
) -> None:
    register("ask-twice", str, replace=True)
    deployment = deploy(shutdown_grace=0.5)
    env = {**provider_env(provider), "REMAP_SIGTERM": "SIGQUIT"}
    worker = deployment.start_worker(concurrency=2, env=env)
    provider.hang_when("echo:")
    batch = deployment.client.submit("ask-twice", words(2))
    wait_until(lambda: len(provider.requests) == 4, what="the second calls are made")
    worker.stop()
    wait_until(lambda: batch.record().running == 0, what="it has handed them back")
    usage = usage_of(batch)
    assert (usage.requests, usage.total_tokens, usage.unpriced_requests) == (4, 6, 2)
    batch.cancel()


def test_a_budget_of_tokens_stops_the_batch_and_a_larger_one_ends_it_with_nothing_paid_twice(
    priced: Deployment, provider: OpenAIServer
) -> None:
    texts, limit = words(120), 200
    batch = priced.client.submit("ask", texts, budget=Budget(tokens=limit))
    record = paused(batch)
    code, message = reason_of(record)
    used = usage_of(batch).total_tokens or 0
    assert limit <= used < limit + (SLOTS + 1) * TOKENS
    assert code == "budget_exceeded"
    assert "the budget is 200: resume with a larger one" in message
    assert record.budget == Budget(tokens=limit)

    calls = len(provider.requests)
    for budget in (None, Budget(tokens=limit), Budget(tokens=used), Budget(usd=0.00001)):
        with pytest.raises(ResumeRefused, match=rf"has used \$.* and {used} tokens: .*--budget-"):
            batch.resume(budget=budget)
    assert batch.record().status is BatchStatus.PAUSED
    assert batch.record().budget == Budget(tokens=limit)
    assert len(provider.requests) == calls

    batch.resume(budget=Budget(tokens=400))
    assert 400 <= (usage_of_paused(batch).total_tokens or 0) < 400 + (SLOTS + 1) * TOKENS
    assert batch.resume(budget=Budget(tokens=10_000)) is BatchStatus.IN_PROGRESS
    record = batch.wait(20)
    assert (record.status, record.reason) == (BatchStatus.COMPLETED, None)
    assert batch.outputs() == [f"echo: Say {text}" for text in texts]
    assert paid(provider) == dict.fromkeys(texts, 1)
    assert usage_of(batch).total_tokens == 120 * TOKENS


def usage_of_paused(batch: Batch) -> Usage:
    return paused(batch).usage or Usage()


def test_a_budget_of_dollars_stops_the_batch(priced: Deployment, provider: OpenAIServer) -> None:
    limit = 0.001
    budget = Budget(usd=limit, tokens=10_000)
    batch = priced.client.submit("ask", words(90), budget=budget)
    record = paused(batch)
    code, message = reason_of(record)
    used = usage_of(batch).cost_usd or 0.0
    assert limit <= used < limit + (SLOTS + 1) * NANOS / 1e9
    assert code == "budget_exceeded"
    assert "are spent, the budget is $0.001" in message
    assert record.budget == budget
    batch.resume(budget=Budget(usd=1))
    assert batch.wait(20).status is BatchStatus.COMPLETED
    assert set(paid(provider).values()) == {1}


def test_a_budget_of_dollars_stops_at_the_first_call_without_a_price(
    priced: Deployment, provider: OpenAIServer
) -> None:
    provider.answers_as = {"word": "another-model"}
    batch = priced.client.submit("ask", words(60), budget=Budget(usd=20))
    code, message = reason_of(paused(batch))
    assert code == "price_unknown"
    assert "list its model in BATCHORD_PRICES" in message
    assert 0 < batch.record().request_counts.done <= 2 * SLOTS
    done = batch.record().request_counts.done
    # Who resumes it so has it stop at the next one.
    batch.resume()
    assert reason_of(paused(batch))[0] == "price_unknown"
    assert done < batch.record().request_counts.done <= done + 2 * SLOTS
    batch.resume(budget=Budget(tokens=10_000))
    assert batch.wait(20).status is BatchStatus.COMPLETED
    assert usage_of(batch).cost_usd is None


def test_a_budget_of_tokens_stops_at_the_first_answer_that_tells_none(
    priced: Deployment, provider: OpenAIServer
) -> None:
    provider.tells_usage = False
    batch = priced.client.submit("ask", words(60), budget=Budget(tokens=10_000))
    code, message = reason_of(paused(batch))
    assert code == "usage_unknown"
    assert "have the server report usage" in message
    assert 0 < batch.record().request_counts.done <= 2 * SLOTS
    assert usage_of(batch).unmetered_requests == batch.record().request_counts.done
    provider.tells_usage = True
    batch.resume()
    assert batch.wait(20).status is BatchStatus.COMPLETED
    assert set(paid(provider).values()) == {1}


def test_a_batch_that_has_nothing_left_to_start_is_not_stopped(
    priced: Deployment, provider: OpenAIServer
) -> None:
    budget = Budget(tokens=30 * TOKENS)
    batch = priced.client.submit("ask", words(30), budget=budget)
    assert batch.wait(20).status is BatchStatus.COMPLETED
    assert usage_of(batch).total_tokens == budget.tokens


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (20, "give Budget(usd=...) or Budget(tokens=...), not a int"),
        (Budget(), "give usd, tokens, or both"),
        (Budget(usd=0), "usd is a number of dollars above 0"),
        (Budget(usd=float("nan")), "usd is a number"),
        (Budget(usd=2e6), "at most 1,000,000"),
        (Budget(usd="20"), "usd is a number"),  # type: ignore[arg-type]
        (Budget(tokens=0), "tokens is an int of at least 1"),
        (Budget(tokens=1.5), "tokens is an int"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_budget_is_refused(priced: Deployment, budget: Any, said: str) -> None:
    assert said in refused(priced, "ask", ["word"], budget=budget)


def test_an_estimate_knows_more_once_a_batch_of_the_chain_has_completed(
    priced: Deployment, provider: OpenAIServer
) -> None:
    priced.redis.delete("batchord:used")

    def of_batches() -> list[str]:
        return sorted(priced.redis.keys("batchord:{*"))

    keys = of_batches()
    texts = ["x" * 10, "é" * 7]
    before = priced.client.estimate("ask", texts)
    assert before == Estimate(items=2, input_tokens=5, based_on="characters")
    assert (of_batches(), provider.requests) == (keys, [])

    batch = priced.client.submit("ask", words(10))
    batch.wait(20)
    after = priced.client.estimate("ask", iter(words(1_000)))
    assert after == Estimate(
        items=1_000,
        input_tokens=2_000,
        output_tokens=3_000,
        cost_usd=1_000 * NANOS / 1e9,
        based_on="batches",
        batches=1,
    )
    # What is unpriced tells about tokens, and nothing about money.
    provider.answers_as = {"word": "another-model"}
    provider.fail_next(400, match="word3")
    batch = priced.client.submit("ask", words(10))
    batch.wait(20)
    batch.retry_failed()
    batch.wait(20)
    found = priced.client.estimate("ask", words(20))
    assert (found.batches, found.cost_usd, found.input_tokens) == (2, 20 * NANOS / 1e9, 38)


def test_an_estimate_refuses_what_a_submit_does(priced: Deployment) -> None:
    with pytest.raises(Exception, match="input 1: not JSON"):
        priced.client.estimate("ask", ["a", b"1"])
    with pytest.raises(Exception, match="no chain is registered as 'nothing'"):
        priced.client.estimate("nothing", ["a"])


def test_the_command_line_shows_what_is_used_of_the_budget_and_resumes_with_more(
    priced: Deployment, provider: OpenAIServer, shell: Shell
) -> None:
    priced.redis.delete("batchord:used")
    shell.write("in.jsonl", [{"input": word} for word in words(40)])
    answer = shell.run("estimate", "ask", "-i", "in.jsonl")
    assert answer.out.startswith("40 items, about 58 tokens in, cost unknown (by the size of")
    budget = ("--budget-usd", "0.0005", "--budget-tokens", "9000")
    batch_id = shell.run("submit", "ask", "-i", "in.jsonl", *budget).out.strip()
    batch = priced.client.retrieve(batch_id)
    record = paused(batch)
    said = shell.run("status", batch_id).out
    assert f"{record.request_counts.done * TOKENS} of 9,000 tokens (" in said
    assert " of $0.0005" in said
    assert re.search(
        r"Paused, budget_exceeded: \$0\.000\d+ are spent, the budget is \$0\.0005", said
    )
    found = shell.run("status", batch_id, "--json").json
    assert found["budget"] == {"usd": 0.0005, "tokens": 9000}
    assert found["usage"]["cost_usd"] == record.usage.cost_usd if record.usage else None

    answer = shell.run("resume", batch_id)
    assert answer.code == 2
    assert "resume it with a larger budget" in answer.err
    assert shell.run("resume", batch_id, "--budget-usd", "1").code == 0
    answer = shell.run("watch", batch_id)
    assert answer.code == 0
    assert "200 tokens, $0.00136 of $1.00" in answer.err
    assert "200 tokens (80 in, 120 out), $0.00136 of $1.00" in answer.out
    row = next(line for line in shell.run("list").out.splitlines() if batch_id in line)
    assert [part.strip() for part in row.split("│")][5:7] == ["200", "$0.00136"]
    answer = shell.run("estimate", "ask", "-i", "in.jsonl", "--json")
    assert answer.json["cost_usd"] == 40 * NANOS / 1e9


def test_a_run_that_has_used_its_budget_says_how_to_go_on(
    priced: Deployment, provider: OpenAIServer, shell: Shell
) -> None:
    shell.write("in.jsonl", [{"input": word} for word in words(60)])
    files = ("-i", "in.jsonl", "-o", "out.jsonl", "--chains", CHAINS)
    answer = shell.run("run", "ask", *files, "--budget-tokens", "50", "--json")
    assert answer.code == 4
    batch_id = answer.json["id"]
    assert "Paused, budget_exceeded: " in answer.err
    assert f"With a larger budget: batchord resume {batch_id} --budget-usd USD" in answer.err
    ended = [each["usage"]["cost_usd"] for each in results(shell.folder / "out.jsonl")]
    priced.client.retrieve(batch_id).cancel()
    assert len(ended) >= 10
    assert set(ended) == {NANOS / 1e9}


def test_a_bad_table_keeps_a_worker_from_starting_and_says_why(
    shell: Shell, priced: Deployment
) -> None:
    shell.write("bad.json", ['{"test-model": {"output": 3}}'])
    env = {"BATCHORD_PRICES": "bad.json", "BATCHORD_CHAINS": CHAINS}
    answer = shell.run("worker", env=env)
    assert answer.code == 2
    assert "Error: BATCHORD_PRICES: 'bad.json' at test-model.input: Field required" in answer.err
    (priced.folder / "bad.json").write_text("{}")
    worker = priced.start_worker(wait=False, env={"BATCHORD_PRICES": "nowhere.json"})
    assert worker.wait(20) != 0
    assert "BATCHORD_PRICES: cannot read 'nowhere.json'" in worker.log.splitlines()[-1]
