"""The sync edge: one background event loop per process, and the threads that sync steps run in."""

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from batchord.chains.runtime.background import call_soon_threadsafe
from batchord.chains.runtime.shared_loop import ProcessTask, SharedLoop

T = TypeVar("T")

#: Seconds that the loop is given to close its connections when the process ends.
STOP_TIMEOUT = 2.0
#: Seconds between two looks whether the loop's thread is alive while a call is waited for.
LOOK = 1.0

#: How many sync steps wait for the code that runs here, in threads: 0 outside of any.
_depth: ContextVar[int] = ContextVar("batchord_thread_depth", default=0)
_this_thread = threading.local()


class LoopDied(RuntimeError):
    """The thread of the event loop has ended."""


class LoopThread:
    """An event loop in a daemon thread; it starts with the first call, and afresh after a fork.

    `threads` bounds how many sync steps run at once (None: the number of CPUs + 4, at most 32).
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self.threads = threads or min(32, (os.cpu_count() or 1) + 4)
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._loop: SharedLoop | None = None
        self._thread: threading.Thread | None = None
        self._pools: list[ThreadPoolExecutor] = []

    @property
    def started(self) -> bool:
        return self._loop is not None and self._pid == os.getpid()

    @property
    def thread(self) -> threading.Thread | None:
        """The thread that the loop runs in, in this process; None before the first call."""
        return self._thread if self._pid == os.getpid() else None

    @property
    def loop(self) -> SharedLoop:
        """The running loop; started if it is not."""
        with self._lock:
            if self._pid != os.getpid():
                self._forget()
            if self._loop is None:
                self._loop = SharedLoop()
                self._loop.start_pool(self._pool(0))
                self._thread = threading.Thread(
                    target=self._loop.turn, name="batchord-loop", daemon=True
                )
                self._thread.start()
            return self._loop

    def turns(self, within: float) -> bool:
        """Return whether the loop runs a callback within `within` seconds."""
        thread, loop = self.thread, self._loop
        if thread is None or loop is None or not thread.is_alive():
            return False
        turned = threading.Event()
        call_soon_threadsafe(loop, turned.set)
        return turned.wait(within)

    def run(self, coro: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run the coroutine on the loop and return its result, or raise its error.

        If the caller is interrupted, or `timeout` seconds pass (TimeoutError), the coroutine is
        cancelled first and has ended when this returns, unless the loop does not turn. Context
        variables of the caller are seen inside.

        Raises:
            RuntimeError: called on the loop itself, which would wait for itself.
            LoopDied: the loop's thread has ended; whether the coroutine came to its end is unknown.
        """
        loop = self.loop
        if threading.current_thread() is self._thread:
            coro.close()
            raise RuntimeError(
                "a sync call (invoke, batch) was made on Batchord's own event loop: "
                "await ainvoke or abatch there instead"
            )
        call = _Call(coro, timeout)
        context = copy_context()
        context.run(_depth.set, max(_depth.get(), getattr(_this_thread, "depth", 0)))
        try:
            # Inside: an interrupt may come at any moment, also before the start is on its way.
            loop.call_soon_threadsafe(call.start, context=context)
            if not self._wait(call, None if timeout is None else timeout + STOP_TIMEOUT):
                raise TimeoutError(f"the event loop has not turned for {STOP_TIMEOUT:g} s")
        except BaseException:
            loop.call_soon_threadsafe(call.cancel)
            while not call.ended.wait(STOP_TIMEOUT) and self.turns(STOP_TIMEOUT):
                pass
            raise
        value: T = call.result()
        return value

    def _wait(self, call: "_Call", seconds: float | None) -> bool:
        """Wait for the end of a call, and return whether it came in time."""
        thread = self._thread
        until = None if seconds is None else time.monotonic() + seconds
        while not call.ended.wait(LOOK):
            if thread is None or not thread.is_alive():
                raise LoopDied("the event loop has ended: see the log for why")
            if until is not None and time.monotonic() > until and not self.turns(STOP_TIMEOUT):
                return False
        return True

    def nested_pool(self, depth: int) -> ThreadPoolExecutor:
        """Threads for sync steps that `depth` other sync steps wait for.

        A pool for each depth: in one shared pool, steps that wait could hold all the threads that
        the steps they wait for need.
        """
        with self._lock:
            return self._pool(depth)

    def _pool(self, depth: int) -> ThreadPoolExecutor:
        while len(self._pools) <= depth:
            number = len(self._pools)
            self._pools.append(
                ThreadPoolExecutor(
                    self.threads,
                    thread_name_prefix=f"batchord-{number}",
                    initializer=_mark_thread,
                    initargs=(number + 1,),
                )
            )
        return self._pools[depth]

    def stop(self) -> None:
        """Cancel running tasks, close resources and end the loop; a later call starts another."""
        with self._lock:
            loop, thread, pools = self._loop, self._thread, self._pools
            alive = loop is not None and self._pid == os.getpid()
            self._forget()
        if loop is None or thread is None or not alive:
            return
        if thread.is_alive():
            closing = asyncio.run_coroutine_threadsafe(_wind_down(), loop)
            try:
                closing.result(STOP_TIMEOUT)
            except TimeoutError:
                closing.cancel()
            loop.call_soon_threadsafe(loop.end)
            thread.join(STOP_TIMEOUT)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        if not thread.is_alive():
            loop.close()


class _Call:
    """One coroutine on its way through the loop."""

    def __init__(self, coro: Coroutine[Any, Any, Any], timeout: float | None) -> None:
        self.ended = threading.Event()
        self._coro = coro
        self._timeout = timeout
        self._task: asyncio.Task[None] | None = None
        self._value: Any = None
        self._error: BaseException | None = asyncio.CancelledError()

    def start(self) -> None:
        if self.ended.is_set():
            return
        # In the caller's context, and for no item of a worker's to cancel.
        self._task = ProcessTask(self._carry_out(), loop=asyncio.get_running_loop())
        # A callback and not a `finally`: a task that is cancelled early never enters its body.
        self._task.add_done_callback(lambda _: self._finish())

    def _finish(self) -> None:
        self._coro.close()
        self.ended.set()

    def cancel(self) -> None:
        if self._task is None:
            self._finish()
        else:
            self._task.cancel()

    async def _carry_out(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                self._value = await self._coro
            self._error = None
        except BaseException as error:  # noqa: BLE001
            # Also SystemExit: it belongs to the caller, and would stop the loop if it left here.
            self._error = error

    def result(self) -> Any:
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._error = None  # the traceback refers to this frame: break the cycle


async def _wind_down() -> None:
    current = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not current]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    loop = asyncio.get_running_loop()
    if isinstance(loop, SharedLoop):
        await loop.close_generators()


def _mark_thread(depth: int) -> None:
    _this_thread.depth = depth


async def in_thread(func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a sync function in a thread of the running loop, with the caller's context variables.

    Cancelling stops the wait at once, and the function only if it has not begun.
    """
    context = copy_context()
    depth = _depth.get()
    executor = default_loop().nested_pool(depth) if depth else None
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(
        executor, lambda: context.run(_without_stop_iteration, func, args, kwargs)
    )


def _without_stop_iteration(
    func: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> T:
    try:
        return func(*args, **kwargs)
    except StopIteration as error:
        # A future refuses StopIteration: awaiting it would never return.
        raise RuntimeError("the function raised StopIteration") from error


_default = LoopThread()
_default_lock = threading.Lock()


def default_loop() -> LoopThread:
    """Return the process's loop thread, on which `invoke` and `batch` run."""
    return _default


def configure(*, threads: int) -> LoopThread:
    """Set how many sync steps the default loop runs at once; RuntimeError once it has started."""
    global _default
    with _default_lock:
        if _default.started:
            raise RuntimeError("configure(threads=...) must come before the first call of a chain")
        _default = LoopThread(threads=threads)
        return _default


def _after_fork() -> None:
    # The loop's thread did not survive the fork, and a lock may have been held by another thread.
    global _default, _default_lock
    _default_lock = threading.Lock()
    _default = LoopThread(threads=_default.threads)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _default.stop())
