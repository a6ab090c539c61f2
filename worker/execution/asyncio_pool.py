"""A Celery pool whose items wait on the event loop: a task that waits holds no thread.

In Celery's `threads` pool each task holds a thread from its start to its end. Here a task's items
are started on the event loop, and when they have ended a thread runs Celery's own tracer, which
finds the report ready. Events, acknowledgement, `Reject`, `Retry` and the chord are Celery's, and
10,000 tasks in flight need a handful of threads. Celery's signal `task_prerun` is sent when the
items have ended. As in `threads`, Celery's time limits do nothing.

Celery plans a pool of its own for this: https://github.com/celery/celery/issues/10634.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Final, NamedTuple

from celery.app.trace import build_tracer
from celery.concurrency import thread
from celery.concurrency.base import apply_target

from batchord.chains.runtime.background import call_soon_threadsafe
from batchord.chains.runtime.loop_thread import default_loop
from batchord.ledger.core.message_ids import RUN_ITEMS
from batchord.worker.execution.task_report import TaskReport

logger = logging.getLogger(__name__)

#: The field of a task's request that holds the future of its report.
REPORT: Final = "batchord_report"

#: Threads that trace tasks whose items have ended, at most, and ended tasks for each of them.
TRACERS: Final = 4
TASKS_A_TRACER: Final = 32

#: Threads of the pool at most: gathers, and tracing.
THREADS: Final = 32

#: Seconds between two looks whether the event loop lives, while the pool waits for its tasks.
LOOK: Final = 1.0

#: Starts the items that a request names, on the event loop.
StartItems = Callable[[dict[str, Any], dict[str, Any]], "asyncio.Future[TaskReport]"]


class _Running(NamedTuple):
    """A task whose items run."""

    start: StartItems
    target: Callable[..., Any]
    args: tuple[Any, ...]
    callback: Callable[..., Any]
    started: float

    @property
    def request(self) -> dict[str, Any]:
        request: dict[str, Any] = self.args[2]
        return request


class _Clock(threading.local):
    """A clock for Celery's tracer, whose first reading in a task is when the items were started."""

    started: float | None = None

    def __call__(self) -> float:
        started, self.started = self.started, None
        return time.monotonic() if started is None else started


class TaskPool(thread.TaskPool):
    """A pool that starts items on the event loop, and runs all other tasks in threads."""

    #: Set by the worker; without it, all tasks run in threads.
    start_items: StartItems | None = None

    def __init__(self, limit: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(min(limit, THREADS), *args, **kwargs)
        self.limit = limit
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        #: Tasks that have been accepted and not traced to their end.
        self._in_hand = 0
        self._arrived: deque[_Running] = deque()
        #: Whether the event loop has been asked to start what has arrived.
        self._asked = False
        self._ended: deque[_Running] = deque()
        self._tracers = 0
        self._clock = _Clock()

    def time_tasks(self, app: Any, hostname: str) -> None:
        """Have Celery's tracer count a task's runtime from the start of its items."""
        task = app.tasks[RUN_ITEMS]
        task.__trace__ = build_tracer(
            task.name, task, app.loader, hostname, app=app, monotonic=self._clock
        )

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **options: Any,
    ) -> Any:
        """Start a task; called by the worker's main thread."""
        start = self.start_items
        if start is None or callback is None or args[0] != RUN_ITEMS:
            return super().on_apply(target, args, kwargs, callback, accept_callback, **options)
        started = time.monotonic()
        if accept_callback is not None:
            accept_callback(os.getpid(), started)
        with self._lock:
            self._in_hand += 1
            self._arrived.append(_Running(start, target, args, callback, started))
            ask, self._asked = not self._asked, True
        if ask:
            # Once for all messages of a read: each call wakes the loop.
            call_soon_threadsafe(default_loop().loop, self._start_arrived)
        return None

    def _start_arrived(self) -> None:
        with self._lock:
            self._asked = False
            arrived, self._arrived = self._arrived, deque()
        for each in arrived:
            ended = _start(each)
            each.request[REPORT] = ended
            ended.add_done_callback(partial(self._items_ended, each), context=Context())

    def _items_ended(self, task: _Running, _: "asyncio.Future[TaskReport]") -> None:
        with self._lock:
            self._ended.append(task)
            more = self._tracers * TASKS_A_TRACER < len(self._ended) and self._tracers < TRACERS
            self._tracers += more
        if more:
            self.executor.submit(self._trace_ended)

    def _trace_ended(self) -> None:
        while True:
            with self._lock:
                if not self._ended:
                    self._tracers -= 1
                    return
                task = self._ended.popleft()
            self._trace(task)
            with self._idle:
                self._in_hand -= 1
                self._idle.notify_all()

    def _trace(self, task: _Running) -> None:
        self._clock.started = task.started
        try:
            apply_target(task.target, task.args, None, task.callback)
        except BaseException as error:  # noqa: BLE001
            # As in Celery's pool, where the error stays in a future that nobody asks.
            logger.error("a task was not traced to its end: %s", type(error).__name__)

    def on_stop(self) -> None:
        """Return when no task runs any more, or the event loop has ended."""
        with self._idle:
            while self._in_hand and self._loop_lives():
                self._idle.wait(LOOK)
        super().on_stop()

    @staticmethod
    def _loop_lives() -> bool:
        loop_thread = default_loop().thread
        return loop_thread is not None and loop_thread.is_alive()

    def _get_info(self) -> Any:
        return {**super()._get_info(), "max-concurrency": self.limit, "tasks": self._in_hand}


def _start(task: _Running) -> "asyncio.Future[TaskReport]":
    _, arguments, _ = task.args[3]
    try:
        return task.start(arguments, task.request)
    except Exception as error:  # noqa: BLE001
        # It is the task's: Celery records that it has failed.
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        return failed


def report_of(request: Any) -> "asyncio.Future[TaskReport] | None":
    """Return the future of a traced task's report; None if its items were not started here."""
    found = getattr(request, REPORT, None)
    return found if isinstance(found, asyncio.Future) else None
