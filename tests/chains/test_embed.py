"""Texts to vectors in as few requests as the limits allow."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.chains import (
    ChainError,
    Embed,
    InvalidInput,
    Lambda,
    OperatorNeeded,
    RetryPolicy,
    Usage,
)
from batchord.chains.runtime.item_context import scope
from batchord.chains.steps import embedding_batcher as collecting
from batchord.chains.steps.embedding_request import share_out
from tests.chains.conftest import until
from tests.support import openai_answers as answers
from tests.support.openai_server import DEFAULT_DIMENSIONS, OpenAIServer

AT_ONCE = RetryPolicy(initial=0.0)


def sizes(server: OpenAIServer) -> list[int]:
    """Texts of each request, largest first: requests that are sent together arrive in any order."""
    return sorted((len(request.body["input"]) for request in server.requests), reverse=True)


def vector(text: str) -> Any:
    return pytest.approx(list(answers.vector(text, DEFAULT_DIMENSIONS)), abs=1e-6)


def test_a_text_gives_a_vector_and_a_list_gives_a_list(server: OpenAIServer) -> None:
    embed = Embed()
    assert embed.invoke("rag") == vector("rag")
    assert embed.invoke(["a", "b"]) == [vector("a"), vector("b")]
    assert embed.invoke([]) == []
    assert server.requests[0].body["model"] == "text-embedding-3-small"


def test_the_model_comes_from_the_environment_unless_it_is_named(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_EMBEDDING_MODEL", "from-env")
    Embed().invoke("a")
    Embed("named", dimensions=8).invoke("a")
    assert [request.body["model"] for request in server.requests] == ["from-env", "named"]
    assert server.requests[1].body["dimensions"] == 8


def test_a_batch_is_as_few_requests_as_the_limits_allow(server: OpenAIServer) -> None:
    texts = [f"text {n}" for n in range(5_000)]
    vectors = Embed(dimensions=2).batch(texts)
    assert sizes(server) == [2_048, 2_048, 904]
    assert len(vectors) == 5_000
    assert vectors[4_321] == pytest.approx(list(answers.vector("text 4321", 2)), abs=1e-6)


def test_max_concurrency_bounds_the_requests_and_not_the_texts(server: OpenAIServer) -> None:
    server.delay = 0.02
    Embed(dimensions=2).batch([f"t{n}" for n in range(5_000)], {"max_concurrency": 1})
    assert sizes(server) == [2_048, 2_048, 904]
    assert server.peak_in_flight == 1


def test_a_retried_embed_is_still_one_step_for_many(server: OpenAIServer) -> None:
    Embed(dimensions=2).with_retry().batch([f"t{n}" for n in range(50)], {"max_concurrency": 1})
    assert sizes(server) == [50]


def test_a_request_holds_no_more_tokens_than_allowed(server: OpenAIServer) -> None:
    texts = ["x" * 23_000 for _ in range(60)]  # some 7,700 tokens each
    Embed(dimensions=2).batch(texts)
    assert sizes(server) == [39, 21]


def test_in_a_chain_texts_of_the_same_moment_share_a_request(server: OpenAIServer) -> None:
    chain = Lambda(str.strip) | {"a": Embed(), "b": len} | (lambda found: found["b"])
    assert chain.batch([" a ", " bb "] * 10) == [1, 2] * 10
    assert sum(sizes(server)) == 20
    assert len(server.requests) <= 3


def test_nobody_waits_for_more_than_the_window(server: OpenAIServer) -> None:
    async def main() -> None:
        embed = Embed()
        await embed.ainvoke("first")
        await embed.ainvoke("second")

    asyncio.run(main())
    assert sizes(server) == [1, 1]


def test_vectors_are_matched_by_index_and_not_by_place(server: OpenAIServer) -> None:
    server.shuffle_embeddings = True
    texts = [f"text {n}" for n in range(50)]
    assert Embed().batch(texts) == [vector(text) for text in texts]


def test_a_bad_text_fails_alone(server: OpenAIServer) -> None:
    server.fail_when("bad", status=400)
    texts = [f"text {n}" for n in range(20)]
    texts[13] = "bad text"
    results: list[Any] = Embed().batch(texts, return_exceptions=True)
    assert isinstance(results[13], ChainError)
    assert (results[13].code, results[13].http_status) == ("bad_request", 400)
    assert [n for n, found in enumerate(results) if isinstance(found, Exception)] == [13]
    assert results[12] == vector("text 12")
    assert len(server.requests) <= 11  # 20, 2 x 10, 2 x 5, ...: two a halving


def test_a_list_fails_as_one_and_spares_the_others(server: OpenAIServer) -> None:
    server.fail_when("bad", status=400)
    results: list[Any] = Embed().batch([["a", "bad"], ["b"]], return_exceptions=True)
    assert isinstance(results[0], ChainError)
    assert results[1] == [vector("b")]


def test_errors_of_one_request_are_not_shared_between_items(server: OpenAIServer) -> None:
    server.fail_when(None, status=401)
    results: list[Any] = Embed().batch(["a", "b"], return_exceptions=True)
    assert len(server.requests) == 1
    assert all(isinstance(found, OperatorNeeded) for found in results)
    assert results[0] is not results[1]
    assert results[0].step == "Embed"


def test_a_request_that_may_pass_is_made_again_for_all_its_texts(server: OpenAIServer) -> None:
    server.fail_next(503, n=2)
    assert len(Embed(retry=AT_ONCE).batch(["a", "b", "c"])) == 3
    assert sizes(server) == [3, 3, 3]


@pytest.mark.parametrize("value", ["", ["a", ""], 3, None, ["a", 3], b"x"])
def test_what_has_no_vector_is_refused_before_anything_is_sent(
    server: OpenAIServer, value: Any
) -> None:
    with pytest.raises(InvalidInput) as raised:
        Embed().invoke(value)
    assert raised.value.code == "invalid_input"
    assert server.requests == []


def test_an_empty_text_spares_its_neighbours(server: OpenAIServer) -> None:
    results: list[Any] = Embed().batch(["a", "", "b"], return_exceptions=True)
    assert [type(found) for found in results] == [list, InvalidInput, list]


def test_the_usage_of_shared_requests_is_counted_once(server: OpenAIServer) -> None:
    embed = Embed(retry=AT_ONCE)
    server.fail_next(503)
    usages = []

    async def one(text: str) -> None:
        with scope() as run:
            await embed.ainvoke(text)
        usages.append(run.usage or Usage())

    async def main() -> None:
        await asyncio.gather(*(one(text) for text in ["one", "one two three", "one two"]))

    asyncio.run(main())
    assert len(server.requests) == 2
    assert sum(usages, Usage()) == Usage(requests=2, input_tokens=6, unpriced_requests=1)
    assert all(usage.input_tokens is not None for usage in usages)


@given(total=st.integers(0, 10_000), weights=st.lists(st.integers(1, 9_000), min_size=1))
def test_shares_sum_up_exactly_and_none_is_negative(total: int, weights: list[int]) -> None:
    used = Usage(requests=3, input_tokens=total, cost_nanos=3 * total, unpriced_requests=1)
    shares = share_out(used, weights)
    assert sum(shares, Usage()) == used
    assert all((share.input_tokens or 0) >= 0 for share in shares)


def test_an_item_that_gives_up_does_not_take_the_others_with_it(server: OpenAIServer) -> None:
    async def main() -> Any:
        embed = Embed()
        gone = asyncio.create_task(embed.ainvoke("gone"))
        stays = asyncio.create_task(embed.ainvoke("stays"))
        await until(lambda: bool(server.requests))
        gone.cancel()
        return await stays

    server.delay = 0.05
    assert asyncio.run(main()) == vector("stays")


def test_a_request_that_nobody_waits_for_is_cancelled(server: OpenAIServer) -> None:
    async def main() -> None:
        embed = Embed()
        items = [asyncio.create_task(embed.ainvoke(text)) for text in "abc"]
        await until(lambda: bool(server.requests))
        for item in items:
            item.cancel()
        await asyncio.wait(items)
        await until(lambda: server.in_flight == 0)

    server.hang_when(None)
    asyncio.run(main())
    assert sizes(server) == [3]


def test_items_that_were_given_up_before_the_request_are_not_sent(
    server: OpenAIServer,
) -> None:
    async def main() -> None:
        embed = Embed()
        gone = asyncio.create_task(embed.ainvoke("gone"))
        stays = asyncio.create_task(embed.ainvoke("stays"))
        await asyncio.sleep(0)
        gone.cancel()
        await stays

    asyncio.run(main())
    assert [request.body["input"] for request in server.requests] == [["stays"]]


def test_a_text_that_would_overfill_the_request_begins_the_next(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "MAX_TOKENS", 20)
    Embed(dimensions=2).batch(["x" * 30, "x" * 30, "x" * 90, "x"])
    assert sizes(server) == [1, 1, 1, 1]
