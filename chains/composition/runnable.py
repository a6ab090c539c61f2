"""The base class of chains: `Runnable`."""

from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, Generic, TypeVar, cast, overload

from batchord.chains.composition import batching
from batchord.chains.config import RunnableConfig
from batchord.chains.runtime.loop_thread import default_loop
from batchord.chains.runtime.retry import RetryByType, RetryIf, RetryPolicy

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Next = TypeVar("Next")

Configs = RunnableConfig | Sequence[RunnableConfig] | None


class Runnable(ABC, Generic[In, Out]):
    """A typed pipeline of one or more steps: one input in, one output out.

    A subclass writes `ainvoke`; all else follows from it. `**kwargs` go to the first step: to a
    function as its keyword arguments, to `Chat` as request options.
    """

    #: How errors and listings call it.
    name: str

    #: How many inputs one call of a provider takes; `max_concurrency` then bounds the calls.
    inputs_per_call: int = 1

    def __init__(self, *, name: str | None = None) -> None:
        self.name = name or type(self).__name__

    @abstractmethod
    async def ainvoke(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        """Run one input through the chain."""

    def invoke(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        """Run one input through the chain and wait for its output.

        Works inside a running event loop too (a notebook), which it blocks meanwhile.
        """
        return default_loop().run(self.ainvoke(input, config, **kwargs))

    async def abatch(
        self,
        inputs: Sequence[In],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Out]:
        """Run every input on its own; the outputs are in the order of the inputs.

        No input waits for another between steps. `max_concurrency` of the (first) config bounds
        the inputs in flight and the calls of steps; None is no bound. The first error is raised,
        and what still runs is cancelled and has ended by then. With `return_exceptions` an
        `Exception` stands in the place of its output instead; any other `BaseException` is raised.
        """
        return await batching.in_order(
            self, inputs, config, return_exceptions=return_exceptions, kwargs=kwargs
        )

    def batch(
        self,
        inputs: Sequence[In],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Out]:
        """As `abatch`, and wait for it."""
        return default_loop().run(
            self.abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        )

    def abatch_as_completed(
        self,
        inputs: Sequence[In],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncGenerator[tuple[int, Out | Exception], None]:
        """As `abatch`, but yield (index, output or exception) as each input ends.

        Closing the generator early cancels the rest.
        """
        return batching.as_completed(
            self, inputs, config, return_exceptions=return_exceptions, kwargs=kwargs
        )

    def batch_as_completed(
        self,
        inputs: Sequence[In],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Generator[tuple[int, Out | Exception], None, None]:
        """As `abatch_as_completed`, for sync code; inputs go on running between two steps of it."""
        return batching.iterate(
            self.abatch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        )

    def with_retry(
        self,
        policy: RetryPolicy | None = None,
        *,
        retry_if_exception_type: RetryIf = (Exception,),
        wait_exponential_jitter: bool = True,
        exponential_jitter_params: Mapping[str, float] | None = None,
        stop_after_attempt: int = 3,
    ) -> "Runnable[In, Out]":
        """Begin this chain again as a whole for an input that failed.

        Every input is retried on its own, after a wait of its own. A `policy` retries what may
        pass. Without one the arguments are LangChain's, and so is their meaning: any `Exception` by
        default, after 1 s, 2 s, 4 s and so on and up to 1 s more. What a person must act on is
        never retried.
        """
        from batchord.chains.composition.derived import Retrying

        found = policy or RetryByType(
            max_attempts=stop_after_attempt,
            retry_if=retry_if_exception_type,
            waits=wait_exponential_jitter,
            **(exponential_jitter_params or {}),
        )
        return Retrying(self, found)

    def with_fallbacks(
        self,
        fallbacks: Iterable[Any],
        *,
        exceptions_to_handle: tuple[type[BaseException], ...] = (Exception,),
        exception_key: str | None = None,
    ) -> "Runnable[In, Out]":
        """For an input that this chain fails with, run the first of `fallbacks` that succeeds.

        With `exception_key` a fallback's input, a dict, has the last error under that key.
        If all fail, the first error is raised. A call that waits for its provider has not failed.
        """
        from batchord.chains.composition.derived import Fallbacks

        return Fallbacks(self, fallbacks, exceptions_to_handle, exception_key)

    def bind(self, **kwargs: Any) -> "Runnable[In, Out]":
        """Give these keyword arguments to each call; those of a call itself come before."""
        from batchord.chains.composition.derived import Bound

        return Bound(self, kwargs, {})

    def with_config(
        self, config: RunnableConfig | None = None, **kwargs: Any
    ) -> "Runnable[In, Out]":
        """Give this config to each call, merged with that of the call itself."""
        from batchord.chains.composition.derived import Bound

        return Bound(self, {}, cast(RunnableConfig, {**(config or {}), **kwargs}))

    def with_listeners(
        self,
        *,
        on_start: Callable[..., Any] | None = None,
        on_end: Callable[..., Any] | None = None,
        on_error: Callable[..., Any] | None = None,
    ) -> "Runnable[In, Out]":
        """Call these functions, sync or async, as each run of this chain starts, ends and fails.

        Each takes the run, a `ListenedRun`, and the config if it has a parameter `config`. They are
        called where the chain runs: of a registered chain, on the workers. An error of theirs is
        logged.
        """
        from batchord.chains.composition.listeners import Listened, Listeners

        return Listened(self, Listeners(on_start=on_start, on_end=on_end, on_error=on_error))

    def map(self) -> "Runnable[Sequence[In], list[Out]]":
        """Run each element of an input, a list, through this chain; the output is a list."""
        from batchord.chains.composition.derived import Each

        return Each(self)

    def assign(self, **branches: Any) -> "Runnable[In, dict[str, Any]]":
        """Add to this chain's output, a dict, the outputs of branches that take it."""
        from batchord.chains.composition.derived import Assign

        return self | Assign(branches)

    def pick(self, keys: str | list[str]) -> "Runnable[In, Any]":
        """Take one value of this chain's output, a dict, or a dict of several."""
        from batchord.chains.composition.derived import Pick

        return self | Pick(keys)

    def pipe(self, *others: Any, name: str | None = None) -> "Runnable[In, Any]":
        """Run this chain, then the others, as with `|`."""
        from batchord.chains.composition.sequence import Sequence as Steps

        return Steps([self, *others], name=name)

    @overload
    def __or__(self, other: "Runnable[Out, Next]") -> "Runnable[In, Next]": ...
    @overload
    def __or__(self, other: Mapping[str, Any]) -> "Runnable[In, dict[str, Any]]": ...
    @overload
    def __or__(self, other: Callable[[Out], Awaitable[Next]]) -> "Runnable[In, Next]": ...
    @overload
    def __or__(self, other: Callable[[Out], Next]) -> "Runnable[In, Next]": ...
    @overload
    def __or__(self, other: Any) -> "Runnable[In, Any]": ...
    def __or__(self, other: Any) -> "Runnable[In, Any]":
        """Return a sequence of this chain and `other`.

        `other`: a chain, a dict of branches, a function, or anything with `invoke` or `ainvoke`.
        """
        from batchord.chains.composition.sequence import Sequence as Steps

        return Steps([self, other])

    def as_langchain(self) -> Any:
        """Return this chain as a Runnable of LangChain's: for its sequences, branches and graphs.

        Raises:
            ImportError: langchain-core is not installed.
        """
        from batchord.chains.composition.langchain_runnable import as_langchain

        return as_langchain(self)

    def fingerprint(self) -> Any:
        """Return, as JSON, the settings that decide on the output; neither input nor code."""
        return [type(self).__qualname__, self.name]

    def children(self) -> Iterable["Runnable[Any, Any]"]:
        """Return the chains that this one is made of."""
        return ()

    def why_not_cached(self) -> str | None:
        """Return why its fingerprint does not tell it from another chain; None: it does."""
        return next(filter(None, (each.why_not_cached() for each in self.children())), None)

    def why_not_metered(self) -> str | None:
        """Return why what it uses cannot be counted; None: it can."""
        return next(filter(None, (each.why_not_metered() for each in self.children())), None)

    def unset(self, environment: Mapping[str, str]) -> list[str]:
        """Return the environment variables that its calls need and that are not set there."""
        found = (name for each in self.children() for name in each.unset(environment))
        return list(dict.fromkeys(found))

    def merged_config(self, config: RunnableConfig) -> RunnableConfig:
        """Return the config of a call with what is bound to the chain."""
        return config

    def plain(self, output: Any) -> Any:
        """Convert an output to the JSON types and models that are recorded, as far as known."""
        return output

    def __ror__(self, other: Any) -> "Runnable[Any, Out]":
        from batchord.chains.composition.sequence import Sequence as Steps

        return Steps([other, self])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
