"""The app that calls arq: enqueues side by side, and asks for the results in order."""
# mypy: disable-error-code="import-not-found"

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

from arq import ArqRedis, create_pool
from arq.connections import RedisSettings

from benchmarks.inputs import MODELS, WrongOutcome, check, inputs
from benchmarks.talk import Answer, serve, spending

T = TypeVar("T")
R = TypeVar("R")

#: Calls to Redis at a time: one after the other would be several times slower.
SIDE_BY_SIDE: Final = 50

loop = asyncio.new_event_loop()


async def _each(call: Callable[[T], Awaitable[R]], given: Iterable[T]) -> list[R]:
    """Return the answers in order, some calls at a time."""
    waiting, answers = list(given), []
    for start in range(0, len(waiting), SIDE_BY_SIDE):
        part = waiting[start : start + SIDE_BY_SIDE]
        answers += await asyncio.gather(*(call(each) for each in part))
    return answers


async def _run(pool: ArqRedis, kind: str, items: int) -> list[Any]:
    async def enqueue(given: Any) -> Any:
        if kind in MODELS:
            job = await pool.enqueue_job("chat", MODELS[kind], given)
        else:
            job = await pool.enqueue_job("noop", given)
        if job is None:
            raise WrongOutcome(f"{given!r} was not enqueued")
        return job

    async def result(job: Any) -> Any:
        return await job.result(poll_delay=0.02)

    return await _each(result, await _each(enqueue, inputs(kind, items)))


pool = loop.run_until_complete(create_pool(RedisSettings.from_dsn(os.environ["BENCH_REDIS_URL"])))


def run(kind: str, items: int) -> Answer:
    """Enqueue, and return when the ordered results are here."""
    with spending() as spent:
        results = loop.run_until_complete(_run(pool, kind, items))
    check(kind, items, results)
    return spent.row(items=items)


if __name__ == "__main__":
    serve(run=run)
