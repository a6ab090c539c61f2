"""What every chain and every step can do."""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, overload

from chains import batching
from chains.concurrency import current_gate, permit
from chains.config import RunnableConfig
from chains.errors import set_step
from chains.kept import Worded, dump_plain
from chains.loop import default_loop
from chains.once import once
from chains.retry import DEFAULT_RETRY, RetryPolicy, attempts

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

    def with_retry(self, policy: RetryPolicy | None = None) -> "Runnable[In, Out]":
        """This chain, begun again as a whole for an input that failed in a way that may pass.

        Every input is retried on its own, after a wait of its own.
        """
        return _Retrying(self, policy or DEFAULT_RETRY)

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
        """This chain, then `other`: a chain, a dict of branches, a function, or anything that has
        `invoke` or `ainvoke`."""
        from chains.sequence import Sequence as Steps

        return Steps([self, other])

    def as_langchain(self) -> Any:
        """Return this chain as a Runnable of LangChain's: for its sequences, branches and graphs.

        Raises:
            ImportError: langchain-core is not installed.
        """
        from chains.langchain_runnable import as_langchain

        return as_langchain(self)

    def fingerprint(self) -> Any:
        """What decides on its output beside the input, as JSON: its settings, and not its code."""
        return [type(self).__qualname__, self.name]

    def plain(self, output: Any) -> Any:
        """An output of this chain as it is recorded: JSON types and models, as far as is known."""
        return output

    def __ror__(self, other: Any) -> "Runnable[Any, Out]":
        from chains.sequence import Sequence as Steps

        return Steps([other, self])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Step(Runnable[In, Out]):
    """A step that does work of its own, in `_run`, and is what an error names.

    Between two attempts, as `retry` allows them, it holds none of the batch's permits.
    """

    #: Whether it is a call that `max_concurrency` bounds.
    is_call: ClassVar[bool] = True
    #: Whether `_run` takes keyword arguments.
    takes_options: ClassVar[bool] = False
    #: Whether its output is paid for: it is kept for the item's next attempt, however fast it was.
    paid: ClassVar[bool] = False

    def __init__(self, *, name: str | None = None, retry: RetryPolicy | None = None) -> None:
        super().__init__(name=name)
        self.retry = retry

    @abstractmethod
    async def _run(self, input: In, config: RunnableConfig, **options: Any) -> Out:
        """Make one attempt."""

    async def ainvoke(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        if kwargs and not self.takes_options:
            raise TypeError(f"{self.name} takes no keyword arguments, got {', '.join(kwargs)}")

        async def attempt() -> Out:
            if not self.is_call or current_gate() is None:
                return await self._run(input, config or {}, **kwargs)
            async with permit():
                return await self._run(input, config or {}, **kwargs)

        try:
            output: Any = await once(self, input, kwargs, attempt)
        except Exception as error:
            set_step(error, self.name)
            raise
        value: Out = output.value if isinstance(output, Worded) else output
        return value

    def dump(self, output: Any) -> str | None:
        """The output as JSON from which `load` makes the very same; None if there is none."""
        return dump_plain(output)

    def load(self, text: str) -> Any:
        """The output that `dump` has made the text of; ValueError if it is none of this step's."""
        return json.loads(text)


class _Retrying(Runnable[In, Out]):
    def __init__(self, chain: Runnable[In, Out], policy: RetryPolicy) -> None:
        super().__init__(name=chain.name)
        self.inputs_per_call = chain.inputs_per_call
        self._chain = chain
        self._policy = policy

    async def ainvoke(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        return await attempts(self._policy, lambda: self._chain.ainvoke(input, config, **kwargs))

    def fingerprint(self) -> Any:
        return self._chain.fingerprint()

    def plain(self, output: Any) -> Any:
        return self._chain.plain(output)
