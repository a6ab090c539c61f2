"""One chain over many inputs: each input runs through the whole chain on its own."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from collections.abc import Sequence as Inputs
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from batchord.chains.config import RunnableConfig, config_list, max_concurrency
from batchord.chains.ratelimit.guard import current_batch, of_batch
from batchord.chains.runtime.concurrency import as_ended, gated_context
from batchord.chains.runtime.loop_thread import default_loop
from batchord.chains.tables.frames import table_rows

if TYPE_CHECKING:
    from batchord.chains.composition.runnable import Runnable

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

Configs = RunnableConfig | Inputs[RunnableConfig] | None


async def in_order(
    chain: "Runnable[In, Out]",
    inputs: Inputs[In],
    config: Configs,
    *,
    return_exceptions: bool,
    kwargs: Mapping[str, Any],
) -> list[Out]:
    """Return the outputs in the order of the inputs."""
    inputs = _held(inputs)
    outputs: list[Any] = [None] * len(inputs)
    ended_inputs = as_completed(
        chain, inputs, config, return_exceptions=return_exceptions, kwargs=kwargs
    )
    async with aclosing(ended_inputs):
        async for index, output in ended_inputs:
            outputs[index] = output
    return outputs


def _held(inputs: Inputs[In]) -> list[In]:
    """Return the inputs as a list, those of a table as dicts of its columns."""
    rows = table_rows(inputs)
    return list(inputs if rows is None else rows)


async def as_completed(
    chain: "Runnable[In, Out]",
    inputs: Inputs[In],
    config: Configs,
    *,
    return_exceptions: bool,
    kwargs: Mapping[str, Any],
) -> AsyncGenerator[tuple[int, Out | Exception], None]:
    """(index, output or exception) as each input ends."""
    inputs = _held(inputs)
    if not inputs:
        return
    configs = [chain.merged_config(each) for each in config_list(config, len(inputs))]
    limit = max_concurrency(configs[0])

    def stops(error: BaseException) -> bool:
        return not (return_exceptions and isinstance(error, Exception))

    outer = current_batch()
    with of_batch(object() if outer is None else outer):
        context = gated_context(limit)
    flight = as_ended(
        _calls(chain, inputs, configs, kwargs),
        context=context,
        limit=None if limit is None else limit * chain.inputs_per_call,
        stops=stops,
    )
    async with aclosing(flight):
        async for ended in flight:
            if ended.error is None:
                # Also an exception object: a step that returns one has succeeded.
                yield ended.index, cast(Out, ended.value)
            elif stops(ended.error):
                raise ended.error
            else:
                yield ended.index, cast(Exception, ended.error)


def _calls(
    chain: "Runnable[In, Out]",
    inputs: Inputs[In],
    configs: Inputs[RunnableConfig],
    kwargs: Mapping[str, Any],
) -> Iterator[Callable[[], Awaitable[Out]]]:
    for each, config in zip(inputs, configs, strict=True):
        yield partial(chain.ainvoke, each, config, **kwargs)


def iterate(stream: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Iterate over an async generator from sync code; the default loop runs and closes it."""
    loop = default_loop()

    async def following() -> tuple[T] | None:
        async for value in stream:
            return (value,)
        return None

    try:
        while (found := loop.run(following())) is not None:
            yield found[0]
    finally:
        loop.run(stream.aclose())
