"""How much runs at once, and that it really is no more."""

import asyncio
import threading
from typing import Any

import pytest

from batchord.chains import Lambda, Parallel, RetryLater, RunnableConfig
from tests.chains.conftest import until
from tests.support.meter import Meter


def test_max_concurrency_bounds_the_inputs_in_flight() -> None:
    in_flight, peak = 0, 0

    async def enter(n: int) -> int:
        nonlocal in_flight, peak
        in_flight += 1
        peak = max(peak, in_flight)
        return n

    async def leave(n: int) -> int:
        nonlocal in_flight
        await asyncio.sleep(0.001)
        in_flight -= 1
        return n

    (Lambda(enter) | leave).batch(list(range(30)), {"max_concurrency": 3})
    assert peak == 3


def test_max_concurrency_bounds_the_calls_under_parallel_branches_too() -> None:
    meter = Meter()
    chain = Parallel({f"b{i}": meter for i in range(5)}) | {"x": {"y": meter, "z": meter}}
    chain.batch([1, 2, 3, 4], {"max_concurrency": 2})
    assert meter.peak == 2
    assert meter.calls == 28


def test_max_concurrency_bounds_the_branches_of_a_single_call() -> None:
    meter = Meter()
    Parallel({f"b{i}": meter for i in range(6)}).invoke(1, {"max_concurrency": 2})
    assert meter.peak == 2


def test_without_a_bound_all_inputs_run_at_once() -> None:
    meter = Meter()
    Lambda(meter).batch(list(range(50)))
    assert meter.peak == 50


def test_a_step_that_runs_a_chain_inside_does_not_wait_for_its_own_permit() -> None:
    inner = Parallel(a=Lambda(str), b=Lambda(str))

    async def outer(n: int) -> Any:
        return await inner.abatch([n, n], {"max_concurrency": 1})

    results = Lambda(outer).batch([1, 2], {"max_concurrency": 1})
    assert results == [[{"a": "1", "b": "1"}] * 2, [{"a": "2", "b": "2"}] * 2]


def test_sync_steps_that_run_chains_of_sync_steps_do_not_use_up_each_others_threads() -> None:
    inner = Lambda(lambda n: n + 1)
    middle = Lambda(lambda n: inner.invoke(n))
    outer = Lambda(lambda n: middle.invoke(n))
    many = list(range(100))  # far more than there are threads
    assert outer.batch(many) == [n + 1 for n in many]


def test_waiting_for_a_retry_holds_no_permit() -> None:
    waiting = threading.Event()

    def first_time_fails(n: int) -> int:
        if not waiting.is_set():
            waiting.set()
            raise RetryLater("busy", after=0.05)
        return n

    order = []

    async def other(n: int) -> int:
        order.append("other" if waiting.is_set() else "too early")
        return n

    retried = Lambda(first_time_fails).with_retry() | (lambda n: order.append("retried"))
    Parallel(a=retried, b=other).batch([1], {"max_concurrency": 1})
    assert order == ["other", "retried"]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
def test_a_bound_that_makes_no_sense_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="max_concurrency must be a positive int or None"):
        Lambda(str).batch([1], {"max_concurrency": limit})


def test_a_list_of_configs_is_as_long_as_the_inputs_and_the_first_bounds_the_batch() -> None:
    meter = Meter()
    rest: list[RunnableConfig] = [{"max_concurrency": 1}] * 9
    configs: list[RunnableConfig] = [{"max_concurrency": 4}, *rest]
    Lambda(meter).batch(list(range(10)), configs)
    assert meter.peak == 4
    with pytest.raises(ValueError, match="a list of 10 for 2 inputs"):
        Lambda(meter).batch([1, 2], configs)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_leaving_early_cancels_the_rest(how: str) -> None:
    meter = Meter(60)

    async def wait(n: int) -> int:
        if n:
            await meter(n)
        else:
            await until(lambda: meter.calls == 4)
        return n

    chain = Lambda(wait)
    if how == "sync":
        stream = chain.batch_as_completed([0, 1, 2, 3, 4])
        assert next(stream) == (0, 0)
        stream.close()
    else:

        async def main() -> None:
            astream = chain.abatch_as_completed([0, 1, 2, 3, 4])
            assert await anext(astream) == (0, 0)
            await astream.aclose()

        asyncio.run(main())
    assert meter.cancelled == 4


def test_a_slow_reader_does_not_hold_up_the_work() -> None:
    done = threading.Event()

    async def last_tells(n: int) -> int:
        if n == 9:
            done.set()
        return n

    stream = Lambda(last_tells).batch_as_completed(list(range(10)), {"max_concurrency": 1})
    next(stream)
    assert done.wait(5)
    assert len(list(stream)) == 9
