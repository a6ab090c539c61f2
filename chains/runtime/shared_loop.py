"""The event loop of all items of a process: what one of them does to it is its own error."""

import asyncio
import logging
from collections.abc import Coroutine, Generator
from contextvars import Context
from types import CodeType, FrameType
from typing import Any, Final, NoReturn

from batchord.chains.errors import ChainError
from batchord.chains.runtime.item_context import ItemContext, current_run, run_of

logger = logging.getLogger(__name__)

#: The function that each task step and each callback of a loop runs in.
_HANDLE_RUN: Final[CodeType] = asyncio.Handle._run.__code__


class LoopMisused(ChainError):
    """A chain called a method of the loop that would harm all that runs on it."""

    def __init__(self, method: str) -> None:
        super().__init__(
            f"the chain called loop.{method}(): the event loop is shared by all items of the "
            "process, and only the process may do that",
            code="loop_misused",
        )


class SharedLoop(asyncio.SelectorEventLoop):
    """An event loop that goes on when a task or callback of an item raises SystemExit.

    Its thread calls `turn`, its owner calls `end`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ended = False
        #: Its `batchord.chains.runtime.loop_lag.LoopLag`, if it is measured.
        self.lag: object = None
        super().set_task_factory(_new_task)
        super().set_exception_handler(_tell)

    def turn(self) -> None:
        """Run until `end` is called, or until the loop cannot go on, which is logged.

        What ends `run_forever` beside that fails the item whose task or callback it came from.
        """
        while not self._ended:
            try:
                self.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                _blame(error)
            except BaseException as error:  # noqa: BLE001
                logger.critical("the event loop cannot go on: %s", type(error).__name__)
                return

    def end(self) -> None:
        """Have `turn` return; call it on the loop's thread."""
        self._ended = True
        super().stop()

    def close_generators(self) -> Coroutine[Any, Any, None]:
        """Close all asynchronous generators, as the loop is about to end."""
        return super().shutdown_asyncgens()

    def start_pool(self, executor: Any) -> None:
        """Set the threads of `run_in_executor`."""
        super().set_default_executor(executor)

    # What would harm all others.

    def stop(self) -> NoReturn:
        _refuse("stop")

    def shutdown_asyncgens(self) -> NoReturn:
        _refuse("shutdown_asyncgens")

    def shutdown_default_executor(self, *_: Any, **__: Any) -> NoReturn:
        _refuse("shutdown_default_executor")

    def set_default_executor(self, *_: Any) -> NoReturn:
        _refuse("set_default_executor")

    def set_exception_handler(self, *_: Any) -> NoReturn:
        _refuse("set_exception_handler")

    def set_task_factory(self, *_: Any) -> NoReturn:
        _refuse("set_task_factory")


class ProcessTask(asyncio.Task[Any]):
    """A task of the process itself, or of one item: code of another item cannot cancel it."""

    #: The item's run, if it is an item's.
    run: ItemContext | None = None
    #: Whether the process has cancelled it, and not its own item.
    stopped = False

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task; does nothing if called from code of another item."""
        caller = current_run()
        if caller is None:
            self.stopped = True
        elif caller is not self.run:
            return False
        return super().cancel(msg)


def running_code(frame: FrameType | None) -> tuple[Context | None, list[FrameType]]:
    """Return the context of the step or callback that the loop runs, and its frames.

    `frame` is the innermost frame of the loop's thread; the frames are returned innermost first.
    """
    frames: list[FrameType] = []
    while frame is not None:
        if frame.f_code is _HANDLE_RUN:
            handle = frame.f_locals.get("self")
            return _context_of(handle), frames
        frames.append(frame)
        frame = frame.f_back
    return None, []


def _refuse(method: str) -> NoReturn:
    error = LoopMisused(method)
    run = current_run()
    if run is not None:
        # Also if the chain catches what is raised here, or nobody awaits it.
        run.fail(error)
    raise error


def _blame(error: BaseException) -> None:
    """Fail the item whose task or callback raised this; say so in the log."""
    run, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is _HANDLE_RUN:
            run = _run_of_handle(trace.tb_frame.f_locals.get("self"))
        trace = trace.tb_next
    logger.error(
        "a background task or callback raised %s%s: the event loop goes on",
        type(error).__name__,
        _named(run),
    )
    if run is not None:
        run.fail(error)


def _context_of(handle: object) -> Context | None:
    # Private, and the same from Python 3.7 on: nothing else tells whose callback it is.
    found = getattr(handle, "_context", None)
    return found if isinstance(found, Context) else None


def _run_of_handle(handle: object) -> ItemContext | None:
    context = _context_of(handle)
    return None if context is None else run_of(context)


def _named(run: ItemContext | None) -> str:
    return f" {run.name}" if run is not None and run.name else ""


def _new_task(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    *,
    context: Context | None = None,
    **options: Any,
) -> asyncio.Task[Any]:
    run = current_run() if context is None else run_of(context)
    if run is not None and run.name and not options.get("name"):
        # For the log, should it fail with nobody to hear of it.
        options["name"] = f"a task of {run.name}"
    return asyncio.Task(coro, loop=loop, context=context, **options)


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that nobody awaits: its type and item, and never its text or its locals."""
    error = context.get("exception")
    handle, task = context.get("handle"), context.get("task") or context.get("future")
    name = _named(_run_of_handle(handle))
    if not name and isinstance(task, asyncio.Task):
        name = f" {task.get_name()}"
    what = "an error" if error is None else type(error).__name__
    where = "a callback" if handle is not None else "a background task"
    logger.error("%s in %s that nobody awaits:%s", what, where, name or " none of an item")
