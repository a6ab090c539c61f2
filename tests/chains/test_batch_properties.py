"""Any mix of successes, failures and durations: outputs line up, and the bound holds."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchord.chains import Lambda, Parallel, RetryLater, RetryPolicy, Runnable

#: What an input does: how many turns of the loop it takes, and how it ends.
Plan = tuple[int, int, str]
plans = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["ok", "fail", "flaky"])),
    max_size=25,
)
limits = st.none() | st.integers(1, 6)


class Bench:
    """A chain of two steps that carries out plans and counts what runs at once."""

    def __init__(self) -> None:
        self.calls = 0
        self.most_calls = 0
        self.inputs: set[int] = set()
        self.most_inputs = 0
        self.tried: set[int] = set()

    async def first(self, numbered: tuple[int, Plan]) -> tuple[int, Plan]:
        self.inputs.add(numbered[0])
        self.most_inputs = max(self.most_inputs, len(self.inputs))
        await self._work(numbered[1][0])
        return numbered

    async def second(self, numbered: tuple[int, Plan]) -> int:
        number, (_, turns, end) = numbered
        await self._work(turns)
        if end == "flaky" and number not in self.tried:
            self.tried.add(number)
            raise RetryLater("once more")
        self.inputs.discard(number)
        if end == "fail":
            raise ValueError(str(number))
        return number

    async def _work(self, turns: int) -> None:
        self.calls += 1
        self.most_calls = max(self.most_calls, self.calls)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:  # a branch whose sibling failed is cancelled here
            self.calls -= 1

    def chain(self, branches: int) -> Runnable[Any, Any]:
        plain = Lambda(self.first) | Lambda(self.second).with_retry(RetryPolicy(initial=0.0))
        if not branches:
            return plain
        side = Lambda(self.side)
        return Parallel({"plain": plain, **{f"b{i}": side for i in range(branches)}})

    async def side(self, numbered: tuple[int, Plan]) -> int:
        await self._work(numbered[1][0])
        return numbered[0]


@settings(max_examples=80, deadline=None)
@given(plans=plans, limit=limits, branches=st.integers(0, 3))
def test_outputs_line_up_with_inputs_and_the_bound_holds(
    plans: list[Plan], limit: int | None, branches: int
) -> None:
    bench = Bench()
    chain = bench.chain(branches)
    results = chain.batch(
        list(enumerate(plans)), {"max_concurrency": limit}, return_exceptions=True
    )
    assert len(results) == len(plans)
    for number, (plan, result) in enumerate(zip(plans, results, strict=True)):
        if plan[2] == "fail":
            assert isinstance(result, ValueError)
            assert str(result) == str(number)
        else:
            assert (result["plain"] if branches else result) == number
    if limit is not None:
        assert bench.most_calls <= limit
        assert bench.most_inputs <= limit


@settings(max_examples=40, deadline=None)
@given(plans=plans, limit=limits, branches=st.integers(0, 2))
def test_without_return_exceptions_all_succeed_or_one_error_is_raised(
    plans: list[Plan], limit: int | None, branches: int
) -> None:
    bench = Bench()
    chain = bench.chain(branches)
    failing = {str(n) for n, plan in enumerate(plans) if plan[2] == "fail"}
    if failing:
        with pytest.raises(ValueError, match=r"^\d+$") as raised:
            chain.batch(list(enumerate(plans)), {"max_concurrency": limit})
        assert str(raised.value) in failing
        return
    results = chain.batch(list(enumerate(plans)), {"max_concurrency": limit})
    numbers = [each["plain"] if branches else each for each in results]
    assert numbers == list(range(len(plans)))


@settings(max_examples=40, deadline=None)
@given(plans=plans, limit=limits, branches=st.integers(0, 2))
def test_as_completed_gives_every_input_once(
    plans: list[Plan], limit: int | None, branches: int
) -> None:
    stream = (
        Bench()
        .chain(branches)
        .batch_as_completed(
            list(enumerate(plans)), {"max_concurrency": limit}, return_exceptions=True
        )
    )
    found = dict(stream)
    assert sorted(found) == list(range(len(plans)))
    for number, plan in enumerate(plans):
        assert isinstance(found[number], ValueError) == (plan[2] == "fail")
