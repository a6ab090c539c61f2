"""Records of one item's run."""

import asyncio

from batchord.chains import Lambda, Parallel, Usage
from batchord.chains.runtime.item_context import report_usage, scope

ONE = Usage(requests=1, input_tokens=10, output_tokens=2)


def test_usage_of_all_steps_branches_and_threads_is_summed() -> None:
    def sync(n: int) -> int:
        report_usage(ONE)
        return n

    async def step(n: int) -> int:
        report_usage(ONE)
        return n

    with scope() as run:
        (Lambda(sync) | Parallel(a=sync, b=step)).invoke(1)
    assert run.usage == Usage(requests=3, input_tokens=30, output_tokens=6, unpriced_requests=3)


def test_usage_is_unknown_until_a_step_reports_some() -> None:
    with scope() as run:
        Lambda(str).invoke(1)
    assert run.usage is None


def test_outside_of_a_run_reports_go_nowhere() -> None:
    report_usage(ONE)


def test_runs_side_by_side_collect_for_themselves() -> None:
    async def step(n: int) -> int:
        await asyncio.sleep(0)
        report_usage(Usage(requests=n))
        return n

    async def one(n: int) -> Usage | None:
        with scope() as run:
            await Lambda(step).ainvoke(n)
        return run.usage

    async def main() -> list[Usage | None]:
        return list(await asyncio.gather(*map(one, range(5))))

    assert asyncio.run(main()) == [Usage(requests=n) for n in range(5)]


def test_unknown_is_none_and_not_zero() -> None:
    total = Usage(requests=1) + Usage(requests=2, input_tokens=5)
    assert total == Usage(requests=3, input_tokens=5)
    assert total.output_tokens is None
    assert total.total_tokens == 5
    assert Usage().total_tokens is None
