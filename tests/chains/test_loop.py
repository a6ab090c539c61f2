"""The sync edge: one loop in a thread, that survives interrupts, exits and forks."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from batchord.chains.runtime.loop_thread import LoopThread, configure, default_loop, in_thread


@pytest.fixture
def loop_thread() -> Iterator[LoopThread]:
    made = LoopThread(threads=2)
    yield made
    made.stop()


async def give(value: str) -> str:
    return value


def test_it_starts_with_the_first_call(loop_thread: LoopThread) -> None:
    assert not loop_thread.started
    assert loop_thread.run(give("a")) == "a"
    assert loop_thread.started


def test_after_a_stop_the_next_call_starts_another(loop_thread: LoopThread) -> None:
    first = loop_thread.loop
    loop_thread.stop()
    assert first.is_closed()
    assert loop_thread.run(give("b")) == "b"


def test_a_stop_cancels_what_runs_and_closes_generators(loop_thread: LoopThread) -> None:
    ended = []
    running = threading.Event()

    async def forever() -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    def call() -> None:
        with pytest.raises(asyncio.CancelledError):
            loop_thread.run(forever())

    caller = threading.Thread(target=call)
    caller.start()
    assert running.wait(5)
    loop_thread.stop()
    caller.join(5)
    assert ended == ["cancelled"]


def test_an_interrupted_caller_cancels_its_coroutine(loop_thread: LoopThread) -> None:
    ended = []

    async def wait_for_ctrl_c() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("cancelled")

    with pytest.raises(KeyboardInterrupt):
        loop_thread.run(wait_for_ctrl_c())
    assert ended == ["cancelled"]
    assert loop_thread.run(give("still there")) == "still there"


def test_a_coroutine_that_takes_too_long_is_cancelled(loop_thread: LoopThread) -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        loop_thread.run(forever(), timeout=0.02)
    assert ended == ["cancelled"]
    assert time.monotonic() - started < 5


def test_an_exit_reaches_the_caller_and_not_the_loop(loop_thread: LoopThread) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        loop_thread.run(leave())
    assert loop_thread.run(give("still there")) == "still there"


def test_context_variables_reach_the_coroutine_and_its_threads(loop_thread: LoopThread) -> None:
    name: ContextVar[str] = ContextVar("name")
    name.set("caller's")

    async def look() -> tuple[str, str]:
        return name.get(), await in_thread(name.get)

    assert loop_thread.run(look()) == ("caller's", "caller's")


def test_sync_steps_run_in_as_many_threads_as_were_asked_for(loop_thread: LoopThread) -> None:
    names = set()
    together = threading.Barrier(2)

    def meet() -> None:
        together.wait(5)
        names.add(threading.current_thread().name)

    async def main() -> None:
        await asyncio.gather(*(in_thread(meet) for _ in range(8)))

    loop_thread.run(main())
    assert len(names) == 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_gets_a_loop_of_its_own() -> None:
    assert default_loop().run(give("parent")) == "parent"
    child = os.fork()
    if child == 0:
        # Only this: anything of pytest must not run twice.
        signal.alarm(10)
        try:
            good = default_loop().run(give("child")) == "child"
        finally:
            os._exit(0 if good else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_threads_are_set_before_the_first_call_or_not_at_all() -> None:
    default_loop().run(give("started"))
    with pytest.raises(RuntimeError, match="before the first call"):
        configure(threads=3)
    before = default_loop()
    before.stop()
    try:
        assert configure(threads=3).threads == 3
        assert default_loop().run(give("again")) == "again"
    finally:
        default_loop().stop()
        configure(threads=before.threads)
