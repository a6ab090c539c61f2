"""Single calls that come at about the same moment share one batch."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from batchord.chains.config import RunnableConfig
from batchord.chains.runtime.background import call_later, spawn
from batchord.ledger.errors import SubmitRefused

#: Runs a batch: yields the index of each input with its output or exception.
Runs = Callable[[Sequence[Any], Sequence[RunnableConfig]], AsyncGenerator[tuple[int, Any], None]]


class _Call(NamedTuple):
    input: Any
    config: RunnableConfig
    ended: asyncio.Future[Any]


class CallBatcher:
    """Collects calls for `seconds` after the first one, and runs them as one batch.

    Each event loop has batches of its own.
    """

    def __init__(self, seconds: float, runs: Runs) -> None:
        self._seconds = seconds
        self._runs = runs
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Call]] = (
            WeakKeyDictionary()
        )
        self._running: set[asyncio.Task[None]] = set()

    async def call(self, input: Any, config: RunnableConfig) -> Any:
        """Return the output of the input, or raise its exception."""
        loop = asyncio.get_running_loop()
        call = _Call(input, config, loop.create_future())
        waiting = self._waiting.setdefault(loop, [])
        waiting.append(call)
        if len(waiting) == 1:
            call_later(self._seconds, self._start, loop)
        return await call.ended

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        calls = [call for call in self._waiting.pop(loop) if not call.ended.done()]
        if calls:
            self._begin(calls)

    def _begin(self, calls: Sequence[_Call]) -> None:
        task = spawn(self._run(calls))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

        def look(_: asyncio.Future[Any]) -> None:
            if all(call.ended.cancelled() for call in calls):
                task.cancel()  # nobody waits any more

        for call in calls:
            call.ended.add_done_callback(look)

    async def _run(self, calls: Sequence[_Call]) -> None:
        inputs, configs = [call.input for call in calls], [call.config for call in calls]
        try:
            async for index, output in self._runs(inputs, configs):
                _end(calls[index], output)
        except SubmitRefused as error:
            if len(calls) == 1:
                _end(calls[0], error)
                return
            # One of them is to blame, and the others are not.
            for call in calls:
                self._begin([call])
        except Exception as error:  # noqa: BLE001
            for call in calls:
                _end(call, error)


def _end(call: _Call, output: Any) -> None:
    if call.ended.done():
        return
    if isinstance(output, Exception):
        call.ended.set_exception(output)
    else:
        call.ended.set_result(output)
