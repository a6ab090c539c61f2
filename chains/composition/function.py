"""A plain function as a step."""

import inspect
from collections.abc import Awaitable, Callable
from types import CellType, CodeType
from typing import Any, Generic, TypeVar, cast, overload

from batchord.chains.composition.runnable import Runnable
from batchord.chains.composition.step import Step
from batchord.chains.config import RECURSION_LIMIT, RunnableConfig, filled
from batchord.chains.langchain import inspection
from batchord.chains.runtime.item_context import current_run
from batchord.chains.runtime.loop_thread import in_thread

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


def takes_config(func: Callable[..., Any]) -> bool:
    """Whether the function has a parameter that is named `config`."""
    try:
        return "config" in inspect.signature(func).parameters
    except (TypeError, ValueError):  # some builtins do not tell
        return False


def _code(code: CodeType) -> Any:
    """Return a code object's content, independent of where it is defined."""
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants


def _content(cell: CellType) -> Any:
    """Return the value of a closure's variable; None if it is not set yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


class Lambda(Step[In, Out], Generic[In, Out]):
    """A function of one argument as a step; keyword arguments of `invoke` are handed on.

    An `async def` runs on the event loop; any other function runs in a thread, so that it never
    blocks the loop. A parameter that is named `config` is given the call's config.

    If the function returns a Batchord chain or a LangChain Runnable, that chain is run with the
    input, and its output is the step's: RecursionError once that has happened `recursion_limit`
    times (25).
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

    @property
    def definition(self) -> Any:
        """The function as it was written: where, and what it does; equal if defined again."""
        func = getattr(self._func, "__func__", self._func)
        if not inspect.isfunction(func):
            return self._func
        closure = tuple(_content(cell) for cell in func.__closure__ or ())
        known = (func.__defaults__, func.__kwdefaults__, getattr(self._func, "__self__", None))
        return func.__qualname__, _code(func.__code__), closure, known

    async def ainvoke(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        output = await super().ainvoke(input, config, **kwargs)
        if not isinstance(output, Runnable) and not inspection.is_runnable(output):
            return output
        from batchord.chains.composition.as_runnable import coerce  # it needs this class

        left = (config or {}).get("recursion_limit", RECURSION_LIMIT)
        if left <= 0:
            raise RecursionError(
                f"{self.name} returned a chain too often: see that it ends, or raise the config's "
                "recursion_limit"
            )
        inner = cast(RunnableConfig, {**(config or {}), "recursion_limit": left - 1})
        # After the function has given its permit back: the chain's steps take their own.
        return cast(Out, await coerce(output).ainvoke(input, inner, **kwargs))

    async def _run(self, input: In, config: RunnableConfig, **options: Any) -> Out:
        config = filled(config)
        if self._takes_config:
            options.setdefault("config", config)
        run = current_run()
        if run is not None and inspection.is_loaded():
            handler = inspection.observer(run)
            config = cast(
                RunnableConfig,
                {**config, "callbacks": inspection.with_handler(config.get("callbacks"), handler)},
            )
        with inspection.inherited(config):
            if self._is_async:
                return cast(Out, await self._func(input, **options))
            output = await in_thread(self._func, input, **options)
            # A lambda or a partial may wrap an async function.
            return cast(Out, await output if inspect.isawaitable(output) else output)
