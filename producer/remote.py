"""A chain that runs on the workers, called as if it were here."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

from pydantic import TypeAdapter

from chains import Runnable, RunnableConfig
from chains.config import config_list, max_concurrency
from ledger.models import Item, ItemStatus
from producer.batch import Batch, not_succeeded
from producer.client import Client


class RemoteRunnable(Runnable[Any, Any]):
    """A registered chain by its name: `batch`, `abatch` and the rest run it on the workers.

    `output_type`: what outputs are read as (a pydantic model, say); else they are JSON values.
    `mode` and `provider_retry` are those of `Client.submit`.
    `config["max_concurrency"]` bounds the items in flight. An item that has no output raises, or
    is given as, `ItemNotSucceeded`. If the workers pause the batch, as no item can succeed until a
    person acts, `BatchPaused` is raised, which names it. What was submitted is durable: it runs to
    its end, also when the caller goes away or another item has failed.
    """

    def __init__(
        self,
        chain: str,
        *,
        client: Client | None = None,
        output_type: Any = None,
        mode: Literal["live", "provider"] = "live",
        provider_retry: Literal["live"] | None = None,
    ) -> None:
        super().__init__(name=chain)
        self._client = client or Client()
        self._options: dict[str, Any] = {"mode": mode, "provider_retry": provider_retry}
        self._adapter: TypeAdapter[Any] | None = (
            None if output_type is None else TypeAdapter(output_type)
        )

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run one input on the workers and return its output."""
        [output] = await self.abatch([input], config, **kwargs)
        return output

    async def abatch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Run every input on the workers; the outputs are in the order of the inputs."""
        batch = await self._submit(inputs, config, kwargs)
        if batch is None:
            return []
        items = batch.results(raise_if_paused=True)
        return [self._output(item, return_exceptions) async for item in items]

    async def abatch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """Yield (index, output or exception) as each input ends on the workers."""
        batch = await self._submit(inputs, config, kwargs)
        if batch is None:
            return
        async for item in batch.as_completed(raise_if_paused=True):
            yield item.index, self._output(item, return_exceptions)

    async def _submit(
        self, inputs: Sequence[Any], config: Any, kwargs: dict[str, Any]
    ) -> Batch | None:
        if kwargs:
            raise TypeError(
                f"a remote chain takes no keyword arguments, got {', '.join(kwargs)}: put them "
                "into the input"
            )
        if not inputs:
            return None
        limit = max_concurrency(config_list(config, len(inputs))[0])
        return await self._client.asubmit(self.name, inputs, max_concurrency=limit, **self._options)

    def _output(self, item: Item, return_exceptions: bool) -> Any:
        if item.status is not ItemStatus.SUCCEEDED:
            error = not_succeeded(item)
            if return_exceptions:
                return error
            raise error
        return item.output if self._adapter is None else self._adapter.validate_python(item.output)
