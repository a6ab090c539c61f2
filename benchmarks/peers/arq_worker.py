"""One arq worker process: `python -m benchmarks.peers.arq_worker MAX_JOBS POLL_DELAY`."""
# mypy: disable-error-code="import-not-found"

import os
import sys
from functools import cache
from typing import Any

from arq import Worker
from arq.connections import RedisSettings

from benchmarks.talk import announce


async def noop(context: dict[str, Any], given: Any) -> Any:
    """Give back what was given."""
    return given


@cache
def _client() -> Any:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    return AsyncOpenAI(max_retries=0, http_client=DefaultAioHttpClient())


async def chat(context: dict[str, Any], model: str, prompt: str) -> str:
    """Ask the provider."""
    messages = [{"role": "user", "content": prompt}]
    completion = await _client().chat.completions.create(model=model, messages=messages)
    return str(completion.choices[0].message.content)


async def _ready(context: dict[str, Any]) -> None:
    announce()


if __name__ == "__main__":
    Worker(
        [noop, chat],
        redis_settings=RedisSettings.from_dsn(os.environ["BENCH_REDIS_URL"]),
        max_jobs=int(sys.argv[1]),
        poll_delay=float(sys.argv[2]),
        log_results=False,
        on_startup=_ready,
    ).run()
