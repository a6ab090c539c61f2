"""Calls of LangChain's Runnables under the breaker, and the limit, of the provider behind them."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from batchord.chains.composition.langchain_providers import Provider, outage_of
from batchord.chains.errors import ChainError, RetryLater
from batchord.chains.explain import PutOff, as_chain_error
from batchord.chains.ratelimit.circuit_breaker import OUTAGE_CODES
from batchord.chains.ratelimit.guard import within
from batchord.chains.ratelimit.probes import PROBE
from batchord.chains.runtime.tracing import ModelCall, traced
from batchord.chains.usage import Usage


class ProviderFailed(RetryLater):
    """A Runnable has failed as calls do whose provider is down; `original` is its error."""

    def __init__(self, original: Exception, found: RetryLater) -> None:
        super().__init__(
            str(found), code=found.code, after=found.after, http_status=found.http_status
        )
        self.original = original


class _Raised(NamedTuple):
    """An error with which the Runnable has failed although its provider answers."""

    error: Exception


async def guarded(
    provider: Provider, call: Callable[[], Awaitable[Any]], callbacks: list[Any]
) -> Any:
    """Make the call for an item of a submitted batch as soon as the provider is not down.

    `callbacks`: observers of a small call of the model, which tells whether it answers.

    Raises:
        ProviderFailed: in place of an error that may be the provider's.
        PutOff: the provider is down, and the item waits elsewhere.
    """

    async def tried() -> tuple[Any, Usage]:
        try:
            return await call(), Usage()
        except PutOff:
            raise
        except Exception as error:
            found = _of_provider(error)
            if found is not None and found.code in OUTAGE_CODES:
                raise ProviderFailed(error, found) from error
            if found is None and as_chain_error(error) is None:
                raise  # whether the provider answers is unknown
            return _Raised(error), Usage()

    async def probe() -> None:
        try:
            await provider.model.ainvoke(PROBE, config={"callbacks": callbacks})
        except Exception as error:
            found = _of_provider(error) or as_chain_error(error)
            raise found or ChainError(str(error), code=type(error).__name__) from error

    output, _ = await within(
        provider.limit,
        1,
        tried if provider.model is None else traced(tried, _about(provider.model)),
        bounded=provider.model is not None,
        probe=None if provider.model is None else probe,
    )
    if isinstance(output, _Raised):
        raise output.error
    return output


def _about(model: Any) -> ModelCall:
    """Return what a span says of a call of LangChain's model."""
    name = getattr(model, "model_name", None) or getattr(model, "model", None)
    base_url = getattr(model, "openai_api_base", None)
    return ModelCall(
        "chat", *(each if isinstance(each, str) else None for each in (name, base_url))
    )


def _of_provider(error: Exception) -> RetryLater | None:
    """Return an error of a client's in our words if it may pass.

    Errors of our own steps have been judged, and a TimeoutError of any code is no provider's.
    """
    if isinstance(error, (ChainError, TimeoutError)):
        return None
    found = as_chain_error(error) or outage_of(error)
    return found if isinstance(found, RetryLater) else None
