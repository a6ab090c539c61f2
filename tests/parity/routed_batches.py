"""A plugin for LangChain's own tests: each batch call that a test makes goes through our wrapper.

It is loaded in a process of its own, by its file, beside LangChain's `tests` package.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Final

from langchain_core.runnables import Runnable

from chains import coerce

METHODS: Final = ("batch", "abatch", "batch_as_completed", "abatch_as_completed")


def routed(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method, which is ours where a test calls it, and else LangChain's own."""

    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        by_test = "unit_tests" in sys._getframe(1).f_code.co_filename
        call = getattr(coerce(self), name) if by_test else original.__get__(self)
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
    """Leave out tests that call no batch: they would test nothing of ours."""
    calling = [item for item in items if "batch" in inspect.getsource(item.function)]
    config.hook.pytest_deselected(items=[item for item in items if item not in calling])
    items[:] = calling


def pytest_collection_finish() -> None:
    """Route the methods of all classes that are imported by now, those of the tests among them."""
    for kind in set(classes(Runnable)):
        for name in METHODS:
            if name in vars(kind):
                setattr(kind, name, routed(name, vars(kind)[name]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"routed calls: {len(routed_calls)}")
