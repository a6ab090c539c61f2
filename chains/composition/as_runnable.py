"""Conversion of functions, dicts and foreign Runnables to steps."""

from collections.abc import Mapping
from typing import Any

from batchord.chains.composition.adapters import Adapter, is_foreign
from batchord.chains.composition.function import Lambda
from batchord.chains.composition.runnable import Runnable


def coerce(value: Any) -> Runnable[Any, Any]:
    """Convert a value to a step, or raise TypeError.

    A chain is itself, anything that has `invoke` or `ainvoke` is called through that, a mapping
    becomes branches side by side, and any other callable is called with the input.
    """
    if isinstance(value, Runnable):
        return value
    if isinstance(value, type) and (issubclass(value, Runnable) or is_foreign(value)):
        raise TypeError(f"{value.__name__} is a class: make a step of it, as {value.__name__}(...)")
    if is_foreign(value):
        return Adapter(value)
    if isinstance(value, Mapping):
        from batchord.chains.composition.parallel import (
            Parallel,  # it needs this function for its branches
        )

        return Parallel(value)
    if callable(value):
        return Lambda(value)
    raise TypeError(
        "a step is a chain, a function (sync or async), a dict of steps, or an object that has "
        f"invoke or ainvoke, not {type(value).__name__}"
    )
