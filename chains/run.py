"""What one item's run collects while its steps work."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from chains.usage import Usage

_current: ContextVar["Run | None"] = ContextVar("batchord_run", default=None)


class Run:
    """The run of one item; `usage` is None until a step has reported some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        """The sum over all calls of the run, failed ones included."""
        return self._usage

    def add(self, usage: Usage) -> None:
        """Count this usage in; safe from any thread."""
        with self._lock:
            self._usage = usage if self._usage is None else self._usage + usage


@contextmanager
def scope(run: Run | None = None) -> Iterator[Run]:
    """Collect what is reported inside, also from tasks and threads that are started inside."""
    run = Run() if run is None else run
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


def report_usage(usage: Usage) -> None:
    """Count this usage for the current run; does nothing outside of a scope.

    Tokens without a cost are those of a request whose price is unknown.
    """
    run = _current.get()
    if run is None:
        return
    if usage.total_tokens and usage.cost_nanos is None and usage.unpriced_requests is None:
        usage = usage.model_copy(update={"unpriced_requests": usage.requests or 1})
    run.add(usage)
