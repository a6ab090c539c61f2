"""dramatiq's actors: BENCH_DRAMATIQ says whether results are kept, and whether a loop runs."""
# mypy: disable-error-code="import-not-found"

import os
from functools import cache
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware
from dramatiq.middleware.asyncio import AsyncIO
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.talk import announce

url = os.environ["BENCH_REDIS_URL"]
variant = os.environ.get("BENCH_DRAMATIQ", "")
kept = variant != "no results"


class Ready(Middleware):  # type: ignore[misc]
    """Says when a worker process takes messages."""

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        announce()


broker = RedisBroker(url=url)
broker.add_middleware(Ready())
if kept:
    broker.add_middleware(Results(backend=RedisBackend(url=url)))
if variant == "asyncio":
    # One event loop a process; asked from threads, the SDK's sync client takes twice the CPU.
    broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)


@cache
def _tally() -> int:
    folder = Path(os.environ["BENCH_TALLY"])
    return os.open(folder / str(os.getpid()), os.O_CREAT | os.O_APPEND | os.O_WRONLY)


def _same(given: Any) -> Any:
    if not kept:
        # Nothing else would prove that each of them ran, and ran once.
        os.write(_tally(), b"%d\n" % given)
    return given


@cache
def _client() -> Any:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    return AsyncOpenAI(max_retries=0, http_client=DefaultAioHttpClient())


async def _chat(model: str, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    completion = await _client().chat.completions.create(model=model, messages=messages)
    return str(completion.choices[0].message.content)


_options = {"store_results": True} if kept else {}
noop = dramatiq.actor(_same, actor_name="noop", **_options)
chat = dramatiq.actor(_chat, actor_name="chat", **_options)
