"""A plugin for LangChain's own tests: each batch call that a test makes goes through our wrapper.

It is loaded in a process of its own, by its file, beside LangChain's `tests` package. Where
BATCHORD_REDIS_URL is set, the calls go through a RemoteRunnable to a worker. That is Celery's for
tests, in a thread of this process: the tests make their chains as they run, and look at the fakes
in them afterwards.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import count
from typing import Any, Final

import pytest
from langchain_core.runnables import Runnable

from batchord.chains import coerce, register
from batchord.producer import RemoteRunnable

REMOTE: Final = os.environ.get("BATCHORD_REDIS_URL")
METHODS: Final = ("batch", "abatch", "batch_as_completed", "abatch_as_completed")


#: More chains than the tests make. The worker serves the names that are there when it starts, and
#: finds the chain of a name when it runs an item.
MOST: Final = 500

numbers = count()


def ours(runnable: Any) -> Any:
    """Return the Runnable of a test as a Batchord chain, in this process or on the worker."""
    if REMOTE is None:
        return coerce(runnable)
    return RemoteRunnable(register(f"theirs-{next(numbers)}", runnable, replace=True).name)


def routed(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method, which is ours where a test calls it, and else LangChain's own."""

    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        by_test = "unit_tests" in sys._getframe(1).f_code.co_filename
        call = getattr(ours(self), name) if by_test else original.__get__(self)
        if by_test:
            routed_calls.append(name)
        return call(*args, **kwargs)

    return method


def classes(base: type) -> Iterator[type]:
    yield base
    kinds: list[type] = base.__subclasses__()
    for each in kinds:
        yield from classes(each)


routed_calls: list[str] = []


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out tests that call no batch, and would test nothing of ours; and those that stop the
    clock where a worker runs in this process."""
    left_out = "freeze_time" if REMOTE else "\0"
    sources = {item: inspect.getsource(item.function) for item in items}
    calling = [item for item in items if "batch" in sources[item] and left_out not in sources[item]]
    config.hook.pytest_deselected(items=[item for item in items if item not in calling])
    items[:] = calling


def pytest_collection_finish() -> None:
    """Route the methods of all classes that are imported by now, those of the tests among them."""
    for kind in set(classes(Runnable)):
        for name in METHODS:
            if name in vars(kind):
                setattr(kind, name, routed(name, vars(kind)[name]))


@pytest.fixture(scope="session", autouse=True)
def worker() -> Iterator[None]:
    """A worker for the calls that go to one."""
    if REMOTE is None:
        yield
        return
    from celery.contrib.testing.worker import start_worker

    from batchord.worker.app import app

    for number in range(MOST):
        register(f"theirs-{number}", lambda value: value)
    with start_worker(app, concurrency=8, pool="threads", perform_ping_check=False):
        yield


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"routed calls: {len(routed_calls)}")
