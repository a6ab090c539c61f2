"""A chain that runs on the workers, called as if it were here."""

import importlib.util
from collections.abc import AsyncGenerator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack, cast

from pydantic import TypeAdapter

from batchord.chains import Runnable, RunnableConfig, registered
from batchord.ledger.errors import BatchPaused
from batchord.ledger.models import Item, ItemStatus
from batchord.producer.batch import Batch
from batchord.producer.call_batcher import CallBatcher
from batchord.producer.callbacks import CallerRuns
from batchord.producer.client import Client
from batchord.producer.inputs import rows_or_values
from batchord.producer.pickled import client_of, state_of
from batchord.producer.submit_options import SubmitOptions
from batchord.producer.typed_outputs import not_succeeded, read_output

if TYPE_CHECKING:
    # Type checkers see the base that is used where langchain-core is installed.
    from batchord.producer.langchain import Bridge as _Base
else:
    _Base = Runnable[Any, Any]

Configs = RunnableConfig | Sequence[RunnableConfig] | None


class RemoteRunnable(_Base):
    """A registered chain by its name: `batch`, `abatch` and the rest run it on the workers.

    Where langchain-core is installed it is a Runnable of LangChain's, with all that these have, and
    a `batch` of a sequence, a branch or a graph around it is one batch of it. langchain-core is
    imported as the first RemoteRunnable is made, and not before.

    `output_type`: what outputs are read as (a pydantic model, say). None: what the chain was
    registered with, if it was in this process; else they are JSON values, and messages, documents
    and prompt values of LangChain's. `options`: those of `Client.submit`, which each call takes
    too, as keyword arguments.

    `gather_calls`: a single call (`invoke`, `ainvoke`) waits these seconds for other calls, of any
    caller in this process, and they share one batch: for branches and graphs, of which LangChain
    runs each input on its own. None: each single call is a batch.

    `config`: tags, metadata, run_name, recursion_limit and configurable go to the workers with the
    batch, and must be JSON; `max_concurrency` bounds the items in flight; callbacks are called here
    as items end, and need langchain-core.

    An item that has no output raises, or is given as, `ItemNotSucceeded`, which names its batch. If
    the workers pause the batch, as no item can succeed until a person acts, `BatchPaused` is
    raised, or stands for each missing output, and names it. What was submitted is durable: it runs
    to its end, also when the caller goes away or another item has failed.

    A pickle of it holds the chain's name, the options, and those settings of its client that
    are not those of the environment; a URL with a password among these is refused.
    """

    #: What the callbacks of a caller are called by; another one where LangChain is.
    _runs: ClassVar[type[CallerRuns]] = CallerRuns
    #: The class that it was asked for as.
    _made_of: ClassVar[type[Any] | None] = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        kind: Any = cls
        return cast(Self, super().__new__(_class_of(kind)))

    def __init__(
        self,
        chain: str,
        *,
        client: Client | None = None,
        output_type: Any = None,
        gather_calls: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> None:
        super().__init__(name=chain)
        _check_options(options)
        self.chain = chain
        self._client = client or Client()
        self._options = options
        self._output_type = output_type
        self._gather_calls = gather_calls
        self._prepare()

    @property
    def input_type(self) -> Any:
        """The chain's input type, if it was registered in this process; None: unknown."""
        here = registered().get(self.chain)
        return None if here is None else here.input_type

    @property
    def output_type(self) -> Any:
        """The type that outputs are read as; None: JSON values, and LangChain's objects."""
        here = registered().get(self.chain)
        return self._output_type or (None if here is None else here.output_type)

    def _prepare(self) -> None:
        """Make what is no part of a pickle."""
        kind = self._output_type
        self._adapter: TypeAdapter[Any] | None = None if kind is None else TypeAdapter(kind)
        self._gathering = (
            None if self._gather_calls is None else CallBatcher(self._gather_calls, self._gathered)
        )

    def _gathered(
        self, inputs: Sequence[Any], configs: Sequence[RunnableConfig]
    ) -> AsyncGenerator[tuple[int, Any], None]:
        return self._outputs(inputs, configs, True, {}, in_order=False)

    # LangChain's would run each input on its own.
    invoke = Runnable.invoke
    batch = Runnable.batch
    batch_as_completed = Runnable.batch_as_completed

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run one input on the workers and return its output."""
        if self._gathering is not None and not kwargs:
            return await self._gathering.call(input, self._runs.captured(config))
        [output] = await self.abatch([input], config, **kwargs)
        return output

    async def abatch(
        self,
        inputs: Sequence[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Run every input on the workers; the outputs are in the order of the inputs."""
        outputs = self._outputs(inputs, config, return_exceptions, kwargs, in_order=True)
        return [output async for _, output in outputs]

    def abatch_as_completed(
        self,
        inputs: Sequence[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """Yield (index, output or exception) as each input ends on the workers."""
        return self._outputs(inputs, config, return_exceptions, kwargs, in_order=False)

    async def _outputs(
        self,
        inputs: Sequence[Any],
        config: Configs,
        return_exceptions: bool,
        options: dict[str, Any],
        *,
        in_order: bool,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        _check_options(options)
        inputs = _held(inputs)
        if not inputs:
            return
        runs = self._runs(self.chain, inputs, config)
        waiting = set(range(len(inputs)))
        try:
            await runs.begin()
            batch = await self._submit(runs, options)
            items = batch.results if in_order else batch.as_completed
            async for item in items(raise_if_paused=True):
                waiting.discard(item.index)
                yield item.index, await self._ended(batch, item, runs, return_exceptions)
        except BatchPaused as error:
            await runs.give_up(error)
            if not return_exceptions:
                raise
            for index in sorted(waiting):
                yield index, error
        except BaseException as error:
            await runs.give_up(error)
            raise

    async def _ended(
        self, batch: Batch, item: Item, runs: CallerRuns, return_exceptions: bool
    ) -> Any:
        """Tell the callbacks of it, and return its output or the exception that stands for it."""
        output, error = self._read(batch, item)
        if error is None:
            await runs.succeeded(item, output)
            return output
        await runs.failed(item, error)
        if not return_exceptions:
            raise error
        return error

    async def _submit(self, runs: CallerRuns, options: dict[str, Any]) -> Batch:
        chosen: dict[str, Any] = {**self._options, **options, "config": runs.config}
        if runs.max_concurrency is not None:
            chosen["max_concurrency"] = runs.max_concurrency
        return await self._client.asubmit(self.chain, runs.inputs, **chosen)

    def _read(self, batch: Batch, item: Item) -> tuple[Any, Exception | None]:
        """Return the item's output, or the exception that stands for it."""
        if item.status is not ItemStatus.SUCCEEDED:
            return None, not_succeeded(batch.id, item)
        try:
            return read_output(self._type(), item), None
        except ValueError as error:
            return None, error

    def _type(self) -> TypeAdapter[Any] | None:
        if self._adapter is not None:
            return self._adapter
        here = registered().get(self.chain)
        return None if here is None else here.output_adapter

    # As a step of a chain that is submitted itself.
    def why_not_cached(self) -> str | None:
        return f"remote chain {self.chain!r} has settings that are known only to its workers"

    def why_not_metered(self) -> str | None:
        return f"what remote chain {self.chain!r} uses is counted in batches of its own"

    def __reduce__(self) -> tuple[Any, ...]:
        made = ("_client", "_adapter", "_gathering")
        state = {name: value for name, value in vars(self).items() if name not in made}
        return _remade, (self._made_of or type(self), state, state_of(self._client))


def _remade(kind: type[RemoteRunnable], state: dict[str, Any], client: dict[str, Any]) -> Any:
    made = kind.__new__(kind)
    vars(made).update(state, _client=client_of(client))
    made._prepare()
    return made


def _held(inputs: Sequence[Any]) -> Sequence[Any]:
    """Return the rows of a table as a list; any other inputs as they are."""
    rows = rows_or_values(inputs)
    return inputs if rows is inputs else list(rows)


def _check_options(options: Any) -> None:
    unknown = options.keys() - SubmitOptions.__annotations__.keys()
    if unknown:
        raise TypeError(
            f"a remote chain takes the options of Client.submit, and not "
            f"{', '.join(sorted(unknown))}: put what the chain needs into the input"
        )


@cache
def _class_of(kind: Any) -> Any:
    """Return the class, made a LangChain Runnable as well where langchain-core is installed."""
    if kind.__dict__.get("_made_of") is not None or _lacks_langchain():
        return kind
    from batchord.producer.langchain import langchain_class

    return langchain_class(kind)


def _lacks_langchain() -> bool:
    return importlib.util.find_spec("langchain_core") is None
