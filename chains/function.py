"""A plain function as a step."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, cast, overload

from chains.config import RunnableConfig
from chains.loop import in_thread
from chains.runnable import Step

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


def takes_config(func: Callable[..., Any]) -> bool:
    """Whether the function has a parameter that is named `config`."""
    try:
        return "config" in inspect.signature(func).parameters
    except (TypeError, ValueError):  # some builtins do not tell
        return False


class Lambda(Step[In, Out], Generic[In, Out]):
    """A function of one argument as a step; keyword arguments of `invoke` are handed on.

    An `async def` runs on the event loop; any other function runs in a thread, so that it never
    blocks the loop. A parameter that is named `config` is given the call's config.
    """

    takes_options = True

    @overload
    def __init__(
        self: "Lambda[In, Out]", func: Callable[[In], Awaitable[Out]], name: str | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: "Lambda[In, Out]", func: Callable[[In], Out], name: str | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: "Lambda[Any, Any]", func: Callable[..., Any], name: str | None = None
    ) -> None: ...
    def __init__(self, func: Callable[..., Any], name: str | None = None) -> None:
        if not callable(func):
            raise TypeError(f"Lambda takes a function, not {type(func).__name__}")
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError("a step returns one output: a generator function cannot be a step")
        own = getattr(func, "__name__", type(func).__name__)
        super().__init__(name=name or ("Lambda" if own == "<lambda>" else own))
        self._func = func
        self._takes_config = takes_config(func)
        self._is_async = inspect.iscoroutinefunction(func) or (
            # An instance whose class has an async __call__.
            inspect.iscoroutinefunction(getattr(type(func), "__call__", None))  # noqa: B004
        )

    async def _run(self, input: In, config: RunnableConfig, **options: Any) -> Out:
        if self._takes_config:
            options.setdefault("config", config)
        if self._is_async:
            return cast(Out, await self._func(input, **options))
        output = await in_thread(self._func, input, **options)
        # A lambda or a partial may wrap an async function.
        return cast(Out, await output if inspect.isawaitable(output) else output)
