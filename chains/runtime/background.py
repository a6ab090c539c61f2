"""Starters for the process's own work, which runs in an empty context without item variables.

asyncio copies the context of the code that creates a task or a timer. An item's context holds its
run, its place in the chain, its deadline and its permits: a task that inherits them would be taken
for that item's. So tasks that outlive an item, or serve several items, are started from here.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from batchord.chains.runtime.shared_loop import ProcessTask

T = TypeVar("T")


def spawn(coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task on the running loop; keep a reference to it.

    Code that runs for an item cannot cancel it, unless it is that item's own.
    """
    return ProcessTask(coro, loop=asyncio.get_running_loop(), context=Context())


def call_later(seconds: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
    """Call back on the running loop after `seconds`."""
    return asyncio.get_running_loop().call_later(seconds, callback, *args, context=Context())


def call_at(when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
    """Have the running loop call back at this time of its clock, in seconds."""
    return asyncio.get_running_loop().call_at(when, callback, *args, context=Context())


def call_soon_threadsafe(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any
) -> asyncio.Handle:
    """Have the loop call back soon; from any thread."""
    return loop.call_soon_threadsafe(callback, *args, context=Context())
