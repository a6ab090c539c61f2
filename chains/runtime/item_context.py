"""The context of one item: usage, checkpoints and its place in the chain."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any

from batchord.chains.runtime.checkpoints import Checkpoints
from batchord.chains.usage import Usage

#: Where in the chain the running code is: the labels of steps and the names of branches.
_place: ContextVar[tuple[str, ...]] = ContextVar("batchord_place", default=())
_current: ContextVar["ItemContext | None"] = ContextVar("batchord_run", default=None)


class ItemContext:
    """The run of one item; `usage` is None until a step has reported some.

    `kept` and `usage`: checkpoints and usage of earlier attempts, if they are recorded. `name` is
    "batch=ID item=INDEX", for the log.
    """

    def __init__(
        self, *, kept: Checkpoints | None = None, usage: Usage | None = None, name: str = ""
    ) -> None:
        self._lock = threading.Lock()
        self._usage = usage
        self._counted: set[Any] = set()
        self.kept = kept
        self.name = name
        #: What the item did to the event loop, which it fails with.
        self.error: BaseException | None = None
        #: Seconds for which its code has blocked the event loop.
        self.blocked = 0.0
        self._task: asyncio.Task[Any] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Say that the item runs inside, in the current task, which `fail` then cancels."""
        self._task = asyncio.current_task()
        try:
            yield
        finally:
            self._task = None

    def fail(self, error: BaseException) -> None:
        """Have the item fail with this error; call it on the loop's thread."""
        self.error = self.error or error
        if self._task is not None:
            self._task.cancel()

    @property
    def usage(self) -> Usage | None:
        """The sum over all calls of all attempts, failed ones included."""
        return self._usage

    def add(self, usage: Usage) -> None:
        """Count this usage in; safe from any thread."""
        with self._lock:
            self._usage = usage if self._usage is None else self._usage + usage

    def is_new(self, call: Any) -> bool:
        """Return whether nobody has asked this about the call before: each is counted once."""
        with self._lock:
            known = call in self._counted
            self._counted.add(call)
            return not known


def item_name(batch_id: str, index: int) -> str:
    """Return an item's name for the log."""
    return f"batch={batch_id} item={index}"


@contextmanager
def scope(run: ItemContext | None = None) -> Iterator[ItemContext]:
    """Collect what is reported inside, also from tasks and threads that are started inside.

    The code inside stands at the head of its chain, wherever the code outside stands.
    """
    run = ItemContext() if run is None else run
    token, before = _current.set(run), _place.set(())
    try:
        yield run
    finally:
        _place.reset(before)
        _current.reset(token)


def current_run() -> ItemContext | None:
    """Return the item context of the running code, or None."""
    return _current.get()


def run_of(context: Context) -> ItemContext | None:
    """Return the item context in this `contextvars` context, or None."""
    return context.get(_current)


def place_of(context: Context) -> tuple[str, ...]:
    """Return the place in the chain of code in this context."""
    return context.get(_place, ())


def keeping() -> bool:
    """Return whether the running code is of a submitted batch's item, which may be deferred."""
    run = _current.get()
    return run is not None and run.kept is not None


def place() -> tuple[str, ...]:
    """Return the place in the chain of the running code."""
    return _place.get()


@contextmanager
def at(label: str) -> Iterator[None]:
    """Say where in the chain the code inside runs."""
    token = _place.set((*_place.get(), label))
    try:
        yield
    finally:
        _place.reset(token)


def report_usage(usage: Usage) -> None:
    """Count this usage for the item whose chain calls this, its batch, and its budget.

    For steps of your own that call a provider: `report_usage(Usage(requests=1, input_tokens=120,
    output_tokens=30))`. Tokens without a cost are those of a request whose price is unknown. Does
    nothing outside of a submitted batch. Safe from any thread that has the caller's context.
    """
    run = _current.get()
    if run is None:
        return
    if usage.total_tokens and usage.cost_nanos is None and usage.unpriced_requests is None:
        usage = usage.model_copy(update={"unpriced_requests": usage.requests or 1})
    run.add(usage)
