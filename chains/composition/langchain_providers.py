"""The provider behind a LangChain Runnable, and the errors by which it shows that it is down."""

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from batchord.chains.errors import RetryLater
from batchord.chains.langchain.inspection import is_runnable, loaded_class
from batchord.chains.openai.client import cool_down_at
from batchord.chains.ratelimit.limits import RateLimit
from batchord.chains.runtime.checkpoints import digest

#: Objects within objects that are looked at.
_DEEPEST: Final = 12
#: Attributes of LangChain's classes of models, the first that is set counts.
_MODELS: Final = ("model_name", "model", "model_id", "deployment_name")
_ADDRESSES: Final = (
    *("openai_api_base", "azure_endpoint", "base_url", "anthropic_api_url", "endpoint_url"),
    "endpoint",
)
_KEYS: Final = ("openai_api_key", "anthropic_api_key", "groq_api_key", "api_key")

_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")
#: Packages whose errors are those of HTTP calls: the clients, and SDKs that are made by the same
#: generator as openai's.
_CLIENTS: Final = frozenset({"httpx", "httpx2", "anthropic", "groq", "cerebras", "together"})
_TIMEOUTS: Final = frozenset({"TimeoutException", "APITimeoutError"})
_UNREACHED: Final = frozenset({"TransportError", "APIConnectionError"})
_OF_STATUS: Final = frozenset({"HTTPStatusError", "APIStatusError"})


class Provider(NamedTuple):
    """The provider of a Runnable: its limit, and the model that can be probed, or None."""

    limit: RateLimit
    model: Any


def provider_of(runnable: Any) -> Provider | None:
    """Return the provider of the models that the Runnable holds, its functions' among them.

    Calls of one model share the limit and the outages of `Chat` with the same address, key and
    model. None: no model can be seen. OpenAI's clients of the models no longer follow redirects: a
    POST would go on as a GET, whose page would be taken for the answer.
    """
    for model in models(runnable):
        _refuse_redirects(model)
    found = {limit.key: (limit, model) for model in models(runnable) if (limit := _limit(model))}
    if len(found) > 1:
        # It fails with any of them.
        return Provider(RateLimit(f"models:{digest(sorted(found))}"), None)
    return Provider(*next(iter(found.values()))) if found else None


def unseen(place: Sequence[str], name: str, definition: Any) -> Provider:
    """Return the provider of a Runnable without a model that can be seen: a name for it alone.

    `definition`: how its parts show themselves, without their addresses in this process.
    """
    parts = _ADDRESS.sub("", repr(definition))
    return Provider(RateLimit(f"runnable:{digest(place, name, parts)}"), None)


def models(value: Any) -> Iterator[Any]:
    """Yield the language models that the object holds, and that its functions name."""
    seen: set[int] = set()
    yield from _models(value, seen, 0)


def outage_of(error: BaseException) -> RetryLater | None:
    """Return an error of an HTTP client as one that a provider which is down may give, or None."""
    names = {
        each.__name__
        for each in type(error).__mro__
        if each.__module__.partition(".")[0] in _CLIENTS
    }
    words = str(error) or type(error).__name__
    if names & _TIMEOUTS:
        return RetryLater(words, code="timeout")
    if names & _UNREACHED:
        return RetryLater(words, code="connection_error")
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if not names & _OF_STATUS or not isinstance(status, int):
        return None
    if status != 429 and status < 500:
        return None
    from batchord.chains.openai.errors import retry_after

    code = "rate_limited" if status == 429 else "server_error"
    after = retry_after(getattr(response, "headers", {}))
    return RetryLater(words, code=code, after=after, http_status=status)


def _models(value: Any, seen: set[int], depth: int) -> Iterator[Any]:
    if id(value) in seen or depth > _DEEPEST:
        return
    seen.add(id(value))
    if isinstance(value, loaded_class("langchain_core.language_models.base", "BaseLanguageModel")):
        yield value
        return
    for part in _parts(value):
        yield from _models(part, seen, depth + 1)


def _parts(value: Any) -> Iterator[Any]:
    """Yield what an object holds: Runnables, containers of them, and what functions name."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value
    elif inspect.isfunction(value) or inspect.ismethod(value):
        yield from _named(value)
    elif is_runnable(value) or type(value).__module__.startswith("langgraph."):
        yield from list(getattr(value, "__dict__", {}).values())


def _named(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield the Runnables among the variables that the function names."""
    try:
        names = inspect.getclosurevars(function)
    except (TypeError, ValueError):
        return
    yield from filter(is_runnable, (*names.nonlocals.values(), *names.globals.values()))
    if inspect.ismethod(function):
        yield from filter(is_runnable, list(getattr(function.__self__, "__dict__", {}).values()))


def _limit(model: Any) -> RateLimit | None:
    name = _first(model, _MODELS)
    if name is None:
        return None
    address, key = _first(model, _ADDRESSES), _first(model, _KEYS)
    if "openai" in type(model).__module__:
        # As its client does where it is told nothing else.
        address = address or os.environ.get("OPENAI_BASE_URL")
        key = key or os.environ.get("OPENAI_API_KEY")
    return cool_down_at(address or type(model).__name__, key, name)


def _refuse_redirects(model: Any) -> None:
    for name in ("root_client", "root_async_client"):
        http = getattr(getattr(model, name, None), "_client", None)
        if http is not None and getattr(http, "follow_redirects", None) is True:
            http.follow_redirects = False


def _first(model: Any, names: tuple[str, ...]) -> str | None:
    for name in names:
        found = getattr(model, name, None)
        secret = getattr(found, "get_secret_value", None)
        found = secret() if callable(secret) else found
        if isinstance(found, str) and found:
            return found
    return None
