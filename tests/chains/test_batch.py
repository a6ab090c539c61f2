"""Promises of `batch`: order, isolation, bounds, and nothing left running."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from batchord.chains import Lambda, Parallel, RetryLater, RetryPolicy, RunnableConfig
from tests.chains.conftest import until
from tests.support.meter import Meter

AT_ONCE = RetryPolicy(initial=0.0)


def odd_fails(n: int) -> int:
    if n % 2:
        raise ValueError(f"odd: {n}")
    return n * 10


def outcomes(results: list[Any]) -> list[Any]:
    return [str(each) if isinstance(each, Exception) else each for each in results]


def test_outputs_are_in_the_order_of_the_inputs_whatever_finishes_first() -> None:
    async def later_first(n: int) -> int:
        await asyncio.sleep((5 - n) / 500)
        return n

    assert Lambda(later_first).batch([1, 2, 3, 4, 5]) == [1, 2, 3, 4, 5]


def test_nothing_in_nothing_out() -> None:
    assert Lambda(str).batch([]) == []
    assert list(Lambda(str).batch_as_completed([])) == []


def test_one_failure_touches_no_other_input() -> None:
    results = Lambda(odd_fails).batch([0, 1, 2, 3], return_exceptions=True)
    assert outcomes(results) == [0, "odd: 1", 20, "odd: 3"]


def test_an_input_may_be_ahead_of_another_by_steps() -> None:
    fast_is_through = asyncio.Event()

    async def first(text: str) -> str:
        if text == "slow":
            await fast_is_through.wait()
        return text

    async def second(text: str) -> str:
        if text == "fast":
            fast_is_through.set()
        return text

    # With a barrier between the steps this would wait for ever.
    assert (Lambda(first) | second).batch(["slow", "fast"]) == ["slow", "fast"]


def test_the_first_error_is_raised_and_the_rest_is_cancelled_by_then() -> None:
    meter = Meter(60)

    async def wait(n: int) -> int:
        if n == 0:
            await asyncio.sleep(0)
            raise ValueError("first")
        await meter(n)
        return n

    with pytest.raises(ValueError, match="first"):
        Lambda(wait).batch(list(range(10)))
    assert meter.calls == meter.cancelled == 9
    assert meter.now == 0


def test_after_the_first_error_nothing_new_is_started() -> None:
    started = []

    async def fail(n: int) -> int:
        started.append(n)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Lambda(fail).batch(list(range(100)), {"max_concurrency": 2})
    assert started == [0, 1]


def test_cancelling_the_caller_cancels_the_inputs() -> None:
    meter = Meter(60)

    async def main() -> None:
        async def wait(n: int) -> int:
            await meter(n)
            return n

        batch = asyncio.create_task(Lambda(wait).abatch([1, 2], return_exceptions=True))
        await until(lambda: meter.calls == 2)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch

    asyncio.run(main())
    assert meter.cancelled == 2


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("branches", [True, False])
def test_an_exit_is_always_raised_and_the_next_batch_runs(
    kind: type[BaseException], is_async: bool, branches: bool
) -> None:
    def leave(n: int) -> int:
        if n == 1:
            raise kind("leaving")
        return n

    async def aleave(n: int) -> int:
        return leave(n)

    step = Lambda[int, Any](aleave if is_async else leave)
    chain = Parallel(a=step) if branches else step
    with pytest.raises(kind):
        chain.batch([0, 1, 2], return_exceptions=True)
    assert len(chain.batch([0, 2])) == 2


def test_a_step_that_returns_an_exception_has_succeeded() -> None:
    error = ValueError("a value")
    chain = Lambda[Any, Any](lambda _: error) | (lambda found: [found])
    assert chain.batch([1, 2]) == [[error], [error]]
    assert Lambda[Any, Any](lambda _: error).batch([1]) == [error]


def test_stop_iteration_in_a_function_is_an_error_and_not_a_hang() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        Lambda(lambda it: next(it)).invoke(iter([]))


def test_a_retried_item_never_gets_the_output_of_another() -> None:
    tries: dict[str, int] = {}

    def flaky(text: str) -> str:
        tries[text] = tries.get(text, 0) + 1
        if text == "always" or (text == "third" and tries[text] < 3):
            raise RetryLater(f"{text} failed")
        return text.upper()

    chain = Lambda(flaky).with_retry(AT_ONCE)
    results = chain.batch(["ok", "third", "always"], return_exceptions=True)
    assert outcomes(results) == ["OK", "THIRD", "always failed"]
    assert tries == {"ok": 1, "third": 3, "always": 3}


def test_a_run_id_that_is_given_once_names_the_first_input_only() -> None:
    run_id = uuid.uuid4()

    async def name(n: int, config: RunnableConfig) -> Any:
        return config.get("run_id")

    with pytest.warns(RuntimeWarning, match="first input only"):
        assert Lambda(name).batch([1, 2], {"run_id": run_id}) == [run_id, None]


def test_what_one_input_sets_in_its_context_no_other_sees() -> None:
    seen: ContextVar[int] = ContextVar("seen", default=0)

    async def look(n: int) -> int:
        before = seen.get()
        seen.set(n)
        return before

    assert Lambda(look).batch([1, 2, 3], {"max_concurrency": 1}) == [0, 0, 0]


def test_outputs_come_as_they_are_completed() -> None:
    async def wait(n: int) -> int:
        await asyncio.sleep(n / 100)
        if n == 1:
            raise ValueError("one")
        return n

    stream = Lambda(wait).batch_as_completed([2, 0, 1], return_exceptions=True)
    assert [(index, str(output)) for index, output in stream] == [(1, "0"), (2, "one"), (0, "2")]


def test_completed_outputs_before_the_first_error_are_still_given() -> None:
    stream = Lambda(odd_fails).batch_as_completed([0, 1], {"max_concurrency": 1})
    assert next(stream) == (0, 0)
    with pytest.raises(ValueError, match="odd: 1"):
        next(stream)


def test_sync_calls_work_inside_a_running_loop() -> None:
    async def notebook() -> list[str]:
        return Lambda(str.upper).batch(["a"])

    assert asyncio.run(notebook()) == ["A"]


def test_a_sync_call_on_the_loop_itself_says_what_to_do() -> None:
    inner = Lambda(str.upper)

    async def bad(text: str) -> str:
        return inner.invoke(text)

    with pytest.raises(RuntimeError, match="await ainvoke or abatch"):
        Lambda(bad).invoke("a")


def test_a_chain_runs_on_whatever_loop_awaits_it() -> None:
    chain: Any = Lambda(str.strip) | {"a": str.upper}
    run: Callable[[], Awaitable[Any]] = lambda: chain.abatch([" a "])  # noqa: E731
    assert asyncio.run(run()) == asyncio.run(run()) == [{"a": "A"}]  # type: ignore[arg-type]
