"""Costs of calls: by the user's own table, exactly, and unknown where it does not say."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from batchord.chains import ChainError, Chat, Embed, Usage, pricing
from batchord.chains.errors import BadPrices
from batchord.chains.runtime.item_context import ItemContext, report_usage, scope
from tests.support.openai_server import OpenAIServer

TABLE = """{
    "test-model": {"input": 2, "cached_input": 0.5, "output": 10},
    "test-model-mini": {"input": 0.15, "output": 0.6},
    "no-output": {"input": 0.02}
}"""


@pytest.fixture(autouse=True)
def _priced(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "prices.json").write_text(TABLE)
    pricing.use(pricing.load(tmp_path / "prices.json"))
    yield
    pricing.use({})


def used(chain: Any, value: Any) -> Usage:
    """Return the usage of one run of the chain; the run may fail."""
    with scope() as run, suppress(ChainError):
        chain.invoke(value)
    assert run.usage is not None
    return run.usage


@pytest.mark.parametrize(
    ("model", "per_million"),
    [
        ("test-model", 2),
        ("test-model-2026-01-01", 2),
        ("test-model-mini", 0.15),
        ("test-model-mini-2026-01-01", 0.15),
        ("test-models", None),
        ("test", None),
        ("", None),
    ],
)
def test_a_model_is_found_by_its_name_or_the_longest_that_it_goes_on_from(
    model: str, per_million: float | None
) -> None:
    cost = pricing.priced(Usage(input_tokens=1_000_000), model).cost_usd
    assert cost == per_million


def test_a_chat_costs_what_its_cached_other_and_output_tokens_do(server: OpenAIServer) -> None:
    server.cached_tokens = 3
    usage = used(Chat("test-model"), "one two three four five")
    # Two tokens at 2, three at 0.5, six at 10 dollars a million.
    assert (usage.cost_nanos, usage.cost_usd) == (65_500, 0.0000655)
    assert usage.unpriced_requests is None


def test_cached_tokens_without_a_price_of_their_own_cost_what_the_others_do(
    server: OpenAIServer,
) -> None:
    server.cached_tokens = 1
    usage = used(Chat("test-model-mini"), "one two")
    assert usage.cost_nanos == 2 * 150 + 3 * 600


def test_the_model_that_has_answered_is_paid_and_not_the_one_that_was_asked(
    server: OpenAIServer,
) -> None:
    server.answers_as = {"dated": "test-model-mini-2026-01-01", "other": "some-other"}
    assert used(Chat("alias"), "dated").cost_nanos == 150 + 2 * 600
    assert used(Chat("test-model"), "other").cost_usd is None


def test_answers_that_did_not_fit_and_were_asked_for_again_are_paid_for(
    server: OpenAIServer,
) -> None:
    class Word(BaseModel):
        word: str

    server.garbage_when(None, n=2)
    usage = used(Chat("test-model", output_type=Word), "a word")
    assert usage.requests == len(server.requests) == 3
    inputs, outputs = usage.input_tokens or 0, usage.output_tokens or 0
    assert usage.cost_nanos == 2_000 * inputs + 10_000 * outputs
    server.refuse_when(None, n=1)
    assert used(Chat("test-model"), "no").cost_nanos


def test_a_request_that_was_refused_costs_nothing(server: OpenAIServer) -> None:
    server.fail_next(500)
    usage = used(Chat("test-model"), "one")
    assert (usage.requests, usage.cost_nanos) == (2, 2_000 + 2 * 10_000)


def test_a_shared_request_for_embeddings_is_paid_once(server: OpenAIServer) -> None:
    with scope() as run:
        Embed("no-output").invoke(["one", "one two", "three"])
    assert run.usage == Usage(requests=1, input_tokens=4, cost_nanos=80)
    assert used(Embed("another"), "one").cost_usd is None


def test_output_without_a_price_is_unknown(server: OpenAIServer) -> None:
    usage = used(Chat("no-output"), "one")
    assert (usage.cost_usd, usage.unpriced_requests) == (None, 1)


def test_a_sum_with_an_unknown_cost_is_unknown() -> None:
    known, unknown = Usage(cost_nanos=5), Usage(unpriced_requests=1)
    assert known.cost_usd == 5e-9
    assert (known + unknown).cost_usd is None
    assert (known + Usage(requests=1)).cost_usd == 5e-9
    run = ItemContext()
    with scope(run):
        report_usage(Usage(input_tokens=3, cost_nanos=7))
        report_usage(Usage(input_tokens=3))  # a step of someone's own, which knows no price
    assert run.usage is not None
    assert run.usage.cost_usd is None


@given(st.lists(st.integers(0, 10**12), min_size=1))
def test_sums_are_exact(costs: list[int]) -> None:
    total = sum((Usage(cost_nanos=n) for n in costs), Usage())
    assert total.cost_nanos == sum(costs)


@pytest.mark.parametrize("tokens", [-1, 10**30, "many", None, 1.5])
def test_what_cannot_be_a_count_of_tokens_is_unknown(tokens: Any) -> None:
    from batchord.chains.openai.client import paid

    usage = paid({"usage": {"prompt_tokens": tokens, "completion_tokens": 1}}, "test-model")
    assert usage.input_tokens is None
    assert (usage.cost_usd, usage.unpriced_requests) == (None, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Invalid JSON"),
        ("[]", "should be an object"),
        ('{"m": 3}', "at m"),
        ('{"m": {}}', "at m.input: Field required"),
        ('{"m": {"input": "dear"}}', "at m.input"),
        ('{"m": {"input": -1}}', "at m.input: Input should be greater than or equal to 0"),
        ('{"m": {"input": NaN}}', "at m.input"),
        ('{"m": {"input": 1e9}}', "less than or equal to 10000"),
        ('{"m": {"input": 1, "out": 2}}', "at m.out: Extra inputs are not permitted"),
    ],
)
def test_a_table_that_is_none_is_refused_with_what_to_change(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(BadPrices) as caught:
        pricing.load(path)
    message = str(caught.value)
    assert message.startswith(f"BATCHORD_PRICES: {str(path)!r}")
    assert said in message
    assert "US dollars per million tokens" in message
    assert "\n" not in message


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(BadPrices, match=r"cannot read '/nowhere' \(No such file or directory\)"):
        pricing.load(Path("/nowhere"))
