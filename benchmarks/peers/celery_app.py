"""Celery as it comes, and Celery tuned: BENCH_CELERY says which.

Tuned: settings and options from its own documentation that made it faster here, nothing of ours.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from benchmarks.talk import announce

url = os.environ["BENCH_REDIS_URL"]
tuned = os.environ.get("BENCH_CELERY") == "tuned"

app = Celery("peers", broker=url, backend=url)
if tuned:
    app.conf.update(
        # Many for short items; for long ones it would leave the other worker without any.
        worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "64")),
        task_acks_late=False,
        # The chord keeps its parts: a result of each part's own would be kept twice.
        task_ignore_result=True,
        # Nobody watches.
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        task_store_errors_even_if_ignored=False,
        broker_connection_retry_on_startup=True,
    )


def captured(work: Callable[[Any], Any], given: Any) -> dict[str, Any]:
    """Return the output, or the error in its place: one that is raised would end the chord."""
    try:
        return {"output": work(given)}
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}


def _same(given: Any) -> Any:
    return given


def _same_captured(given: Any) -> dict[str, Any]:
    return captured(_same, given)


def _ordered(results: list[Any]) -> list[Any]:
    return results


def _chat(given: tuple[str, str]) -> dict[str, Any]:
    return captured(ask, given)


_starting = threading.Lock()


@cache
def _started_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def _loop() -> asyncio.AbstractEventLoop:
    # A cache alone would let two threads that come at once have a loop each.
    with _starting:
        return _started_loop()


@cache
def _client() -> Any:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    return AsyncOpenAI(max_retries=0, http_client=DefaultAioHttpClient())


async def _ask(model: str, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    completion = await _client().chat.completions.create(model=model, messages=messages)
    return str(completion.choices[0].message.content)


def ask(given: tuple[str, str]) -> str:
    """Ask on the process's one event loop: half the CPU of the SDK's sync client."""
    return asyncio.run_coroutine_threadsafe(_ask(*given), _loop()).result()


def _ready(**_: object) -> None:
    announce()


noop = app.task(name="noop")(_same_captured if tuned else _same)
ordered = app.task(name="ordered", ignore_result=False)(_ordered)
chat = app.task(name="chat")(_chat)

worker_ready.connect(_ready, weak=False)
