"""The watchdog's judgement of an event loop whose thread has ended."""

import threading
import time
from collections.abc import Callable

import pytest

from batchord.chains.runtime.loop_thread import LoopThread
from batchord.worker.execution.watchdog import LOOK, Watchdog
from tests.support.waiting import wait_until


def _die(loop: LoopThread) -> None:
    """End the thread as an error in the loop's own code would: its owner does not know of it."""
    shared = loop.loop
    shared.call_soon_threadsafe(shared.end)


ENDS: list[tuple[Callable[[LoopThread], None], bool]] = [
    (LoopThread.stop, False),
    (_die, True),
]


@pytest.mark.parametrize(("end", "dead"), ENDS, ids=["stopped by its owner", "died"])
def test_only_a_loop_that_its_owner_did_not_stop_is_dead(
    end: Callable[[LoopThread], None], dead: bool
) -> None:
    loop, died = LoopThread(), threading.Event()
    before = {*threading.enumerate()}
    Watchdog(loop, limit=60, on_dead=lambda _: died.set()).start()
    (watch,) = [each for each in {*threading.enumerate()} - before if each.name == "watchdog"]
    end(loop)
    if dead:
        assert died.wait(60)
        loop.stop()
    wait_until(lambda: not watch.is_alive(), what="the watchdog has ended")
    time.sleep(LOOK)
    assert died.is_set() == dead
