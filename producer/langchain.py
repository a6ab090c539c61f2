"""A remote chain as a Runnable of LangChain's; imported only where langchain-core is installed."""

from collections.abc import Mapping, Sequence
from functools import cache
from types import new_class
from typing import Any

from langchain_core.callbacks.manager import AsyncCallbackManager, AsyncCallbackManagerForChainRun
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import Runnable as LangChainRunnable
from langchain_core.runnables.config import ensure_config, get_async_callback_manager_for_config

from batchord.chains import Runnable, Usage
from batchord.chains.config import RunnableConfig, config_list
from batchord.ledger.models import Item
from batchord.producer.callbacks import CallerRuns


class Bridge(LangChainRunnable[Any, Any], Runnable[Any, Any]):  # type: ignore[misc]
    """LangChain's methods, put before those of the same name that chains have."""

    @property
    def input_type(self) -> Any:
        """The chain's input type; None: unknown."""
        return None

    @property
    def output_type(self) -> Any:
        """The chain's output type; None: unknown."""
        return None

    # For its schemas, and for what LangChain makes by them: `as_tool`, a graph's drawing.
    @property
    def InputType(self) -> Any:
        return Any if self.input_type is None else self.input_type

    @property
    def OutputType(self) -> Any:
        return Any if self.output_type is None else self.output_type

    def __or__(self, other: Any) -> Any:
        return super().__or__(_as_langchain(other))

    def __ror__(self, other: Any) -> Any:
        return super().__ror__(_as_langchain(other))

    def pipe(self, *others: Any, name: str | None = None) -> Any:
        return super().pipe(*map(_as_langchain, others), name=name)


def _as_langchain(step: Any) -> Any:
    """Convert a step, and Batchord's chains in it, to LangChain's form."""
    if isinstance(step, Mapping):
        return {name: _as_langchain(each) for name, each in step.items()}
    return step.as_langchain() if isinstance(step, Runnable) else step


@cache
def langchain_class(kind: type[Any]) -> type[Any]:
    """Return a subclass of `kind`, a RemoteRunnable, that is a Runnable of LangChain's too."""
    fields = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "_made_of": kind,
        "_runs": LangChainRuns,
    }
    return new_class(kind.__name__, (kind, Bridge), exec_body=lambda body: body.update(fields))


class LangChainRuns(CallerRuns):
    """Calls the callbacks of the caller: a chain run for each input, which ends as its item does.

    In it is one run of a model that stands for all calls of the item, with the tokens that they
    have used, so that LangChain's usage callbacks count them: under the model that the output
    names, else under the chain's name.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None,
    ) -> None:
        one: Any = config
        if isinstance(config, Sequence):
            config_list(config, len(inputs))
            filled: Any = [ensure_config(each) for each in one]
        else:
            filled = ensure_config(one)
        super().__init__(name, inputs, filled)
        self._filled = filled
        self.config = (
            [_without_callbacks(each) for each in filled]
            if isinstance(filled, list)
            else _without_callbacks(filled)
        )
        self._running: dict[int, AsyncCallbackManagerForChainRun] = {}

    @classmethod
    def captured(cls, config: RunnableConfig | None) -> RunnableConfig:
        given: Any = config
        filled: Any = ensure_config(given)
        # The callbacks that a `with` around the call has set are known only here.
        manager = get_async_callback_manager_for_config(filled)
        filled["callbacks"] = manager if manager.handlers else None
        return super().captured(filled)

    async def begin(self) -> None:
        for index, config in enumerate(config_list(self._filled, len(self.inputs))):
            manager = get_async_callback_manager_for_config(config)
            if manager.handlers:
                self._running[index] = await manager.on_chain_start(
                    None,
                    self.inputs[index],
                    run_id=config.get("run_id"),
                    name=config.get("run_name") or self.name,
                )
            elif not isinstance(self._filled, list):
                return  # none of them has any

    async def succeeded(self, item: Item, output: Any) -> None:
        run = self._running.pop(item.index, None)
        if run is not None:
            await self._tell_usage(run.get_child(), item.usage, output)
            await run.on_chain_end(output)

    async def failed(self, item: Item, error: BaseException) -> None:
        run = self._running.pop(item.index, None)
        if run is not None:
            await self._tell_usage(run.get_child(), item.usage, None)
            await run.on_chain_error(error)

    async def give_up(self, error: BaseException) -> None:
        while self._running:
            _, run = self._running.popitem()
            await run.on_chain_error(error)

    async def _tell_usage(
        self, manager: AsyncCallbackManager, usage: Usage | None, output: Any
    ) -> None:
        if usage is None or not usage.total_tokens:
            return
        said = output.response_metadata if isinstance(output, AIMessage) else {}
        message = AIMessage(
            content="",
            usage_metadata=_usage_metadata(usage, output),
            response_metadata={"model_name": said.get("model_name") or self.name},
        )
        result = LLMResult(generations=[[ChatGeneration(message=message)]])
        for call in await manager.on_chat_model_start({}, [[]], name=f"models of {self.name}"):
            await call.on_llm_end(result)


def _without_callbacks(config: Any) -> Any:
    return {name: value for name, value in config.items() if name != "callbacks"}


def _usage_metadata(usage: Usage, output: Any) -> UsageMetadata:
    said = output.usage_metadata if isinstance(output, AIMessage) else None
    if said is not None and said["total_tokens"] == usage.total_tokens:
        return said  # it was the only call, and the model told more than is recorded of an item
    told = UsageMetadata(
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        total_tokens=usage.total_tokens or 0,
    )
    # What nobody has reported is left out, as LangChain does.
    if usage.cached_input_tokens is not None:
        told["input_token_details"] = InputTokenDetails(cache_read=usage.cached_input_tokens)
    if usage.reasoning_tokens is not None:
        told["output_token_details"] = OutputTokenDetails(reasoning=usage.reasoning_tokens)
    return told
