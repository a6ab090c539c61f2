"""Tenants: what a key may do, at a time and in a day, and what it never sees of another."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import openai
import pytest

from tests.conftest import Deploy
from tests.support.api_server import ApiServer, ended, lines_of, make, request
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

TENANTS = {
    "narrow": "max_batches = 1",
    "small": "max_items = 5",
    "picky": 'models = ["m", "gpt-*"]',
    "poor": "budget_usd_per_day = 0.01",
    "late": "priority = 7",
    "free": "",
}


@pytest.fixture(scope="module")
def priced(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Deployment:
    """A worker that knows what the model costs: a cent for four tokens in."""
    deployment = deploy_for_module(alike_limit=0, sweep_interval=0.5)
    prices = deployment.folder / "prices.json"
    prices.write_text(json.dumps({"m": {"input": 2_500, "output": 0}}))
    env = {"BATCHORD_CHAINS": "", "BATCHORD_PRICES": str(prices)}
    deployment.start_worker(env={**provider_env(provider_for_module), **env})
    return deployment


@pytest.fixture(scope="module")
def many(priced: Deployment) -> ApiServer:
    return ApiServer(priced, TENANTS)


def _left_nothing(priced: Deployment, before: int) -> None:
    assert len(priced.redis.keys("*:api:batch:*")) == before, "nothing was written"


def _over(
    many: ApiServer, priced: Deployment, tenant: str, first: int, second: int
) -> openai.RateLimitError:
    with many.client(tenant, max_retries=0) as client:
        batch = make(client, [request(i, f"slow {i}") for i in range(first)])
        before = len(priced.redis.keys("*:api:batch:*"))
        with pytest.raises(openai.RateLimitError) as caught:
            make(client, [request(i) for i in range(second)])
        _left_nothing(priced, before)
        client.batches.cancel(batch.id)
        ended(client, batch)
        assert ended(client, make(client, [request(0)])).status == "completed", "it has room again"
    return caught.value


@pytest.mark.parametrize(
    ("tenant", "first", "second"), [("narrow", 1, 1), ("small", 3, 3)], ids=["batches", "items"]
)
def test_as_many_at_a_time_as_the_key_says(
    many: ApiServer,
    priced: Deployment,
    provider: OpenAIServer,
    tenant: str,
    first: int,
    second: int,
) -> None:
    provider.hang_when("slow")
    error = _over(many, priced, tenant, first, second)
    assert (error.type, error.code) == ("requests", "rate_limit_exceeded")
    assert int(error.response.headers["retry-after"]) > 0


def test_a_budget_a_day(many: ApiServer, priced: Deployment, provider: OpenAIServer) -> None:
    with many.client("poor", max_retries=0) as client:
        # Two tokens each: half a cent.
        done = ended(client, make(client, [request(i) for i in range(2)]))
        assert done.status == "completed"
        before = len(priced.redis.keys("*:api:batch:*"))
        with pytest.raises(openai.RateLimitError) as caught:
            make(client, [request(0)])
        _left_nothing(priced, before)
    error = caught.value
    assert (error.type, error.code) == ("insufficient_quota", "insufficient_quota")
    assert 0 < int(error.response.headers["retry-after"]) <= 24 * 3600
    assert error.response.headers["x-should-retry"] == "false"


class Side(NamedTuple):
    """Batches that run side by side, and the calls of half a cent that the day's 5 cents allow."""

    batches: int
    asked: float | None = None


SIDE_BY_SIDE = {
    "one batch": Side(1),
    "three batches": Side(3),
    "five batches, each with a budget of the whole day": Side(5, asked=0.05),
    "two batches, each with a budget of more than the day": Side(2, asked=1.0),
}


@pytest.mark.parametrize("case", SIDE_BY_SIDE)
def test_the_budget_of_a_day_holds_for_batches_side_by_side(
    case: str, priced: Deployment, provider: OpenAIServer
) -> None:
    side = SIDE_BY_SIDE[case]
    tenant = f"day{list(SIDE_BY_SIDE).index(case)}"
    api = ApiServer(priced, {tenant: "budget_usd_per_day = 0.05"})
    key = f"batchord:api:day-budget:{tenant}"
    more: dict[str, Any] = {"max_concurrency": 1}
    if side.asked is not None:
        more["budget"] = {"usd": side.asked}
    provider.delay = 0.05
    with api.client(tenant, max_retries=0) as client:
        lines = [request(i) for i in range(20)]
        batches = [make(client, lines, extra_body=more) for _ in range(side.batches)]
        for batch in batches:
            reason = wait_until(partial(_paused, client, batch), "it pauses", timeout=60)
            assert reason["code"] == "day_budget_exceeded"
        # Two tokens each: half a cent. What runs when the tenth call ends may end.
        assert 10 <= len(provider.requests) <= 10 + side.batches
        with pytest.raises(openai.RateLimitError):
            make(client, lines)
        with pytest.raises(openai.RateLimitError):
            client.post(f"/batches/{batches[0].id}/resume", cast_to=httpx2.Response)
        assert int(priced.redis.hget(key, "spent")) == len(provider.requests) * 5_000_000
        # Tomorrow they go on by themselves, until that day's budget is used, too.
        priced.redis.hset(key, "day", 1)
        wait_until(lambda: len(provider.requests) >= 20, "they go on", timeout=60)
        for batch in batches:
            client.batches.cancel(batch.id)
            ended(client, batch)
    api.process.kill()


def _paused(client: openai.OpenAI, batch: Any) -> Any:
    return client.batches.retrieve(batch.id).model_extra["batchord"]["reason"]  # type: ignore[index]


def test_a_budget_of_a_batch_pauses_it(
    many: ApiServer, priced: Deployment, provider: OpenAIServer
) -> None:
    with many.client("free") as client:
        lines = [request(i) for i in range(20)]
        batch = make(client, lines, extra_body={"budget": {"usd": 0.01}, "max_concurrency": 1})

        def paused() -> Any:
            found = client.batches.retrieve(batch.id)
            return found if found.model_extra["batchord"]["paused"] else None  # type: ignore[index]

        found = wait_until(paused, "it pauses", timeout=60)
        assert found.status == "in_progress", "OpenAI has no word for it"
        assert found.model_extra["batchord"]["reason"]["code"] == "budget_exceeded"
        client.batches.cancel(batch.id)


def test_models_that_a_key_may_not_use_fail_the_file(
    many: ApiServer, provider: OpenAIServer
) -> None:
    def body(model: str) -> Any:
        return {"model": model, "messages": [{"role": "user", "content": "x"}]}

    with many.client("picky") as client:
        fine = [request(0), request(1, body=body("gpt-9"))]
        assert ended(client, make(client, fine)).status == "completed"
        batch = ended(client, make(client, [*fine, request(2, body=body("other"))]))
    assert batch.status == "failed"
    [problem] = batch.errors.data
    assert (problem.code, problem.line, problem.param) == ("model_not_allowed", 3, "body.model")


def test_no_batch_is_served_before_its_keys_priority(
    many: ApiServer, priced: Deployment, provider: OpenAIServer
) -> None:
    with many.client("late") as client:
        with pytest.raises(openai.BadRequestError) as caught:
            make(client, [request(0)], extra_body={"priority": 6})
        assert caught.value.param == "priority"
        batch = make(client, [request(0)])
        ended(client, batch)
        meta = priced.redis.hgetall(f"batchord:{{{batch.id}}}:meta")
        assert meta["priority"] == "7"


def test_dedupe_is_of_one_batch_and_never_of_another_tenants(
    many: ApiServer, provider: OpenAIServer
) -> None:
    lines = [request(i, "the same") for i in range(4)]
    for tenant in ("free", "picky"):
        with many.client(tenant) as client:
            before = len(provider.requests)
            done = ended(client, make(client, lines, extra_body={"dedupe": True}))
            assert len(lines_of(client, done.output_file_id)) == 4
            assert len(provider.requests) == before + 1


def test_a_key_is_nowhere_but_with_its_caller(many: ApiServer, priced: Deployment) -> None:
    words = re.compile("|".join(map(re.escape, many.keys.values())))
    records = [key for key in priced.redis.scan_iter("*") if priced.redis.type(key) == "hash"]
    texts = [json.dumps(priced.redis.hgetall(key)) for key in records]
    texts += [path.read_text(errors="replace") for path in _files(priced.folder)]
    assert texts
    assert not [text for text in texts if words.search(text)]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
