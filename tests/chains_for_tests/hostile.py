"""Chains that harm the event loop of their process, each in a way of its own."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from batchord.chains import Lambda, register
from tests.chains_for_tests.basic import write_line

SECRET = "a secret of the input"

#: Seconds that an item waits which has harmed the loop beside its own task.
LONG = 10.0


async def _exit() -> None:
    sys.exit(SECRET)


async def _interrupt() -> None:
    raise KeyboardInterrupt(SECRET)


async def _fail() -> None:
    raise ValueError(SECRET)


async def _long() -> None:
    await asyncio.sleep(LONG)


async def awaited_task() -> None:
    await asyncio.create_task(_exit())


async def forgotten_task() -> None:
    task = asyncio.create_task(_exit())
    await _long()
    del task


async def interrupted_task() -> None:
    await asyncio.create_task(_interrupt())


async def gathered() -> None:
    await asyncio.gather(_long(), _exit())


async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_exit())
        group.create_task(_long())


async def callback() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, SECRET)
    await _long()


async def timer() -> None:
    asyncio.get_running_loop().call_later(0.01, sys.exit, SECRET)
    await _long()


async def langchain() -> None:
    from langchain_core.runnables import RunnableLambda

    await RunnableLambda(sys.exit).ainvoke(SECRET)


async def langchain_parallel() -> None:
    from langchain_core.runnables import RunnableLambda, RunnableParallel

    await RunnableParallel(a=RunnableLambda(sys.exit), b=RunnableLambda(str)).ainvoke(SECRET)


async def stop() -> None:
    asyncio.get_running_loop().stop()


async def stop_in_callback() -> None:
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.stop)
    await _long()


async def stop_from_thread() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(loop.call_soon_threadsafe, loop.stop)
    await _long()


async def shut_executor() -> None:
    await asyncio.get_running_loop().shutdown_default_executor()


async def shut_generators() -> None:
    await asyncio.get_running_loop().shutdown_asyncgens()


async def set_handler() -> None:
    asyncio.get_running_loop().set_exception_handler(None)


async def close() -> None:
    asyncio.get_running_loop().close()


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel(SECRET)
    await _long()


async def cancel_itself_and_return() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel(SECRET)


async def cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel(SECRET)
    await _long()


async def fail_in_background() -> None:
    task = asyncio.create_task(_fail())
    await asyncio.sleep(0.05)
    del task


async def fail_in_callback() -> None:
    def fail() -> None:
        raise ValueError(SECRET)

    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0.05)


async def block() -> None:
    time.sleep(2.0)  # noqa: ASYNC251


async def block_for_ever() -> None:
    time.sleep(3600)  # noqa: ASYNC251


async def end_process() -> None:
    os._exit(9)


WAYS = {
    way.__name__: way
    for way in (
        *(awaited_task, forgotten_task, interrupted_task, gathered, grouped, callback, timer),
        *(langchain, langchain_parallel),
        *(stop, stop_in_callback, stop_from_thread, shut_executor, shut_generators, set_handler),
        *(close, cancel_itself, cancel_itself_and_return, cancel_all),
        *(fail_in_background, fail_in_callback, block, block_for_ever, end_process),
    )
}


async def harm(what: dict[str, Any]) -> Any:
    """Do harm in the way that `do` names, if any; else return `value` after `seconds`."""
    if "path" in what:
        write_line(what["path"], what["value"])
    if what.get("do"):
        await asyncio.sleep(0.1)  # its neighbours have begun
        await WAYS[what["do"]]()
    await asyncio.sleep(what.get("seconds", 0))
    return what["value"]


async def block_at_gate(what: dict[str, Any]) -> Any:
    """Block the event loop until the file `gate` is there."""
    while not Path(what["gate"]).exists():
        time.sleep(0.05)  # noqa: ASYNC251
    return what["value"]


class NoFingerprint(Lambda[Any, Any]):
    """A step whose settings cannot be told."""

    def fingerprint(self) -> Any:
        raise LookupError(SECRET)


register("harm", harm)
register("harm-briefly", harm, timeout=1.0)
register("block-at-gate", block_at_gate)
register("no-fingerprint", NoFingerprint(harm, name="harm"))
