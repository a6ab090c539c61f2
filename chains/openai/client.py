"""The edge to the provider: the only place that makes clients and lets errors of the SDK through.

One client per event loop, made on first use from OPENAI_API_KEY and OPENAI_BASE_URL and closed
when the loop shuts down. It never retries: retries have one owner, `batchord.chains.runtime.retry`.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import pydantic

from batchord.chains import pricing
from batchord.chains.errors import ChainError, OperatorNeeded, RetryLater
from batchord.chains.explain import MAX_RAW, as_chain_error
from batchord.chains.openai.error_body import fault_in, reason, text_of
from batchord.chains.openai.repeated_request import Sender
from batchord.chains.ratelimit.circuit_breaker import current_patience
from batchord.chains.ratelimit.limits import RateLimit
from batchord.chains.runtime.durable_step import idempotency_key
from batchord.chains.runtime.item_context import keeping
from batchord.chains.usage import Usage

if TYPE_CHECKING:
    # Imported on first use: it takes a second, and a producer never needs it.
    from openai import AsyncOpenAI

    from batchord.chains.openai.routes import Route

#: Tokens of one answer that are believed.
_MOST_TOKENS: Final = 10**9

_Settings = tuple[str | None, ...]
#: What of the environment a client is made from.
_VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")

_clients: WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[_Settings, tuple[Sender, AsyncGenerator[None, None]]]
] = WeakKeyDictionary()


async def client(route: "Route | None" = None) -> "AsyncOpenAI":
    """Return the running loop's client for a route, else for the current environment."""
    return (await sender(route)).sdk


async def sender(route: "Route | None" = None) -> Sender:
    """Return the sender of the running loop's client for a route, or the current environment."""
    loop = asyncio.get_running_loop()
    mine = _clients.setdefault(loop, {})
    settings = tuple(os.environ.get(name) for name in _VARIABLES)
    if route is not None:
        settings = (route.key(), route.url)
    if settings not in mine:
        from openai import AsyncOpenAI

        http = _http_client()
        if route is None:
            made = AsyncOpenAI(max_retries=0, http_client=http)
        else:
            made = AsyncOpenAI(
                api_key=settings[0],
                base_url=settings[1],
                max_retries=0,
                http_client=http,
            )
            # Those of the environment are of another provider's.
            made.organization = made.project = None
        # The loop closes the generators that were begun on it, and this one closes the client.
        lifetime = _lifetime(loop, made)
        mine[settings] = Sender(made, http), lifetime
        await anext(lifetime)
    return mine[settings][0]


def _http_client() -> Any:
    """Make the SDK's HTTP client, which follows redirects of GET requests only.

    A POST that is redirected would go on as a GET, whose page would be taken for the answer.
    """
    from openai import DefaultAioHttpClient

    class Client(DefaultAioHttpClient):
        async def send(self, request: Any, **options: Any) -> Any:
            if request.method != "GET":
                options["follow_redirects"] = False
            return await super().send(request, **options)

    return Client()


async def _lifetime(
    loop: asyncio.AbstractEventLoop, made: "AsyncOpenAI"
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        _clients.pop(loop, None)
        await made.close()
        # As aiohttp wants it: its connections close in the loop's next turn.
        await asyncio.sleep(0)


@contextmanager
def translate() -> Iterator[None]:
    """Let no error of the SDK through but as one of ours.

    The SDK's is not shown as its cause: a traceback would print the provider's words unmasked.
    """
    try:
        yield
    except ChainError:
        raise
    except Exception as error:
        ours = as_chain_error(error)
        if ours is None:
            raise
        raise ours from None


def model_name(given: str | None, variable: str, default: str | None = None) -> str:
    """Return the model to ask: `given`, else the environment's, else the default.

    OperatorNeeded (`model_not_found`) without a model: no item can succeed until a model is named.
    """
    model = given or os.environ.get(variable) or default
    if not model:
        raise OperatorNeeded(f"no model: set {variable} or pass model=...", code="model_not_found")
    return model


def unset(environment: Mapping[str, str], *needed: str) -> list[str]:
    """Return what a call lacks in this environment: the key, and these variables."""
    return [name for name in (*needed, "OPENAI_API_KEY") if not environment.get(name)]


def named(request: Any) -> dict[str, str]:
    """Return the header that names a request, the same in each attempt; empty outside of a batch.

    A provider that knows the name repeats its earlier answer, which is not paid twice.
    """
    key = idempotency_key(request)
    return {} if key is None else {"Idempotency-Key": key}


def shared_cool_down(model: str) -> RateLimit | None:
    """Return the limit of a model without an explicit limit.

    It counts nothing; it lets all workers know of a cool-down. None outside of a submitted batch
    where outages are not borne.
    """
    return cool_down_of(model) if keeping() or current_patience() > 0 else None


def cool_down_of(model: str, route: "Route | None" = None) -> RateLimit:
    """Return the limit without numbers that all calls of this model with this key share."""
    if route is not None:
        return cool_down_at(route.url, route.key_env, route.model or model)
    return cool_down_at(os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY"), model)


@lru_cache(1000)
def cool_down_at(base_url: str | None, key: str | None, model: str) -> RateLimit:
    """Return the limit without numbers of a model at this address with this key."""
    name = hashlib.sha256(f"{base_url} {key} {model}".encode()).hexdigest()[:16]
    return RateLimit(f"model:{name}")


def body_of(raw: Any) -> Any:
    """As `json_of`, of the SDK's raw response."""
    return json_of(raw.http_response)


def json_of(response: Any) -> Any:
    """Parse the JSON body of an HTTP response, in the charset that it declares.

    Raises:
        RetryLater: `invalid_output`, it is not JSON; the next answer may be.
        ChainError: `invalid_output`, it is nested too deeply. `raw` has the text of either.
    """
    content = response.content
    try:
        return json.loads(content if _is_unicode(response.charset_encoding) else response.text)
    except UnicodeDecodeError:
        content = content.decode(errors="replace")
    except ValueError:
        raise _not_json(response) from None
    except RecursionError:
        raise _too_deep(response) from None
    try:
        return json.loads(content)
    except ValueError:
        raise _not_json(response) from None
    except RecursionError:
        raise _too_deep(response) from None


def raise_fault(body: Any, headers: Mapping[str, str] | None = None) -> None:
    """Raise the error that the body of an answer with status 200 is, if it is one.

    It is the error that a status of its own code would have been, `after` as the headers say.
    """
    fault = fault_in(body)
    if fault is not None:
        from batchord.chains.openai import errors

        after = None if headers is None else errors.retry_after(headers)
        raise errors.of_fault(fault, text_of(body), after)


def no_answer(body: Any) -> RetryLater:
    """Make the error of an answer that lacks a required part; the next answer may be whole."""
    words = reason(body)
    said = f": {words}" if words else ", it lacks what its form has"
    return RetryLater(
        f"the provider's answer is invalid{said}", code="invalid_output", raw=text_of(body)
    )


def _is_unicode(charset: str | None) -> bool:
    """Whether `json.loads` knows the charset by itself."""
    return charset is None or charset.lower().startswith("utf")


def _not_json(response: Any) -> RetryLater:
    text = response.text[: 2 * MAX_RAW]
    words = reason(text)
    said = f" but: {words[:200]}" if words else ", it is empty"
    return RetryLater(
        f"the provider's answer is not JSON{said} (check OPENAI_BASE_URL)",
        code="invalid_output",
        raw=text,
    )


def _too_deep(response: Any) -> ChainError:
    return ChainError(
        "the provider's answer is nested too deeply to be read",
        code="invalid_output",
        raw=response.text[: 2 * MAX_RAW],
    )


def paid(body: Any, asked: str, *, batch: bool = False) -> Usage:
    """Return the usage and cost of an answer, for the model that it names, else for `asked`.

    `batch`: it is one of a provider's batch.
    """
    named = body.get("model") if isinstance(body, dict) else None
    model = named if isinstance(named, str) and named else str(asked)
    return pricing.priced(_tokens_used(body), model, batch=batch)


def _tokens_used(body: Any) -> Usage:
    """Return the tokens that an answer's body reports; a count that is missing is None."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return Usage()
    # As the Responses API names them, else as all others do.
    asked, answered = (
        ("input_tokens", "output_tokens")
        if "input_tokens" in usage
        else ("prompt_tokens", "completion_tokens")
    )
    inputs = usage.get(f"{asked}_details") or {}
    outputs = usage.get(f"{answered}_details") or {}
    try:
        used = Usage(
            input_tokens=usage.get(asked),
            cached_input_tokens=inputs.get("cached_tokens"),
            output_tokens=usage.get(answered),
            reasoning_tokens=outputs.get("reasoning_tokens"),
        )
        # Sums of it are kept as 64 bits: no answer has more tokens, or fewer than 0.
        return used if all(0 <= n <= _MOST_TOKENS for n in used.counts().values()) else Usage()
    except (AttributeError, pydantic.ValidationError):
        return Usage()  # a server with a form of its own: unknown, and no reason to fail the item
