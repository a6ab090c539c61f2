"""A chain as a Runnable of LangChain's; imported only by `Runnable.as_langchain`."""

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import Runnable as LangChainRunnable
from langchain_core.runnables import RunnableConfig as LangChainConfig

from batchord.chains.composition.runnable import Runnable

Configs = LangChainConfig | list[LangChainConfig] | None


def as_langchain(chain: Any) -> Any:
    """Return the chain as a Runnable of LangChain's; itself if it is one."""
    return chain if isinstance(chain, LangChainRunnable) else LangChainChain(chain)


class LangChainChain(LangChainRunnable[Any, Any]):
    """Calls the chain: a batch stays one batch, and a run of it is one run of LangChain's."""

    def __init__(self, chain: Runnable[Any, Any]) -> None:
        self.chain = chain
        self.name = chain.name

    @property
    def InputType(self) -> Any:
        return Any

    @property
    def OutputType(self) -> Any:
        return Any

    def invoke(self, input: Any, config: LangChainConfig | None = None, **kwargs: Any) -> Any:
        def call(input: Any, config: Any) -> Any:
            return self.chain.invoke(input, config, **kwargs)

        return self._call_with_config(call, input, config)

    async def ainvoke(
        self, input: Any, config: LangChainConfig | None = None, **kwargs: Any
    ) -> Any:
        async def call(input: Any, config: Any) -> Any:
            return await self.chain.ainvoke(input, config, **kwargs)

        return await self._acall_with_config(call, input, config)

    def batch(
        self,
        inputs: list[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        def call(inputs: Sequence[Any], config: Any) -> list[Any]:
            return self.chain.batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

        return self._batch_with_config(call, inputs, config, return_exceptions=return_exceptions)

    async def abatch(
        self,
        inputs: list[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        async def call(inputs: Sequence[Any], config: Any) -> list[Any]:
            return await self.chain.abatch(
                inputs, config, return_exceptions=return_exceptions, **kwargs
            )

        return await self._abatch_with_config(
            call, inputs, config, return_exceptions=return_exceptions
        )
