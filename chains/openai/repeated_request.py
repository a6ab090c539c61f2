"""Requests that differ from one the SDK has sent in their body alone, sent without the SDK.

The SDK takes three times as long to build a request as to send it. So the first request of a kind
is the SDK's own: it checks the options, and knows address, key, headers and timeouts. Its URL and
headers then serve all requests of that kind, which go through the same HTTP client, and end in the
same exceptions. If the SDK has sent another body than the one that would have been sent without it,
each request of that kind stays the SDK's.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

#: Options that are about the sending, and no part of what is sent.
OF_SENDING: Final = ("timeout", "extra_headers", "extra_query", "extra_body")

#: Headers of a request that are not of the next one.
_OF_ONE: Final = frozenset({"content-length", "cookie", "transfer-encoding"})

#: Kinds of requests that a client keeps in mind.
_MOST_KINDS: Final = 256

#: As the SDK writes JSON.
_encoder: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

#: A method of the SDK that sends a request and returns its raw response.
Create = Callable[..., Awaitable[Any]]


class _Pattern(NamedTuple):
    """The common part of all requests of a kind."""

    url: "httpx2.URL"
    headers: list[tuple[str, str]]
    extensions: dict[str, Any]


class Sender:
    """Sends requests through one client of the SDK."""

    def __init__(self, sdk: "AsyncOpenAI", http: "httpx2.AsyncClient") -> None:
        self.sdk = sdk
        self._http = http
        #: None: a kind whose requests stay the SDK's.
        self._patterns: dict[Any, _Pattern | None] = {}

    async def post(
        self,
        create: Create,
        request: Mapping[str, Any],
        large: tuple[str, Any],
        headers: Mapping[str, str],
    ) -> "httpx2.Response":
        """Return the response to a request, whose body is read.

        `request`: the arguments of `create`. `large`: one more field of the body and its value,
        which the SDK does not look through. `headers`: those of this one request.

        Raises:
            openai.OpenAIError: as `create` does.
        """
        extra = {large[0]: large[1], **(request.get("extra_body") or {})}

        async def ask() -> "httpx2.Response":
            arguments = {
                **request,
                # As an argument, the SDK would look each message up in a union of types, to rename
                # nothing: a quarter of what a call costs. `extra_body` it sends as it is.
                large[0]: [],
                "extra_headers": {**headers, **(request.get("extra_headers") or {})},
                "extra_body": extra,
            }
            response: httpx2.Response = (await create(**arguments)).http_response
            return response

        body = {name: value for name, value in request.items() if name not in OF_SENDING} | extra
        return await self._post(_kind_of(create, request, headers), body, headers, ask)

    async def post_body(
        self,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        timeout: float | None = None,
    ) -> "httpx2.Response":
        """Return the response to a body that is posted as it is.

        `timeout`: seconds; None: the SDK's. Raises as the SDK's `post` does.
        """
        # With the SDK's client, so that it is there already.
        import httpx2

        options: Any = {"headers": headers} | ({} if timeout is None else {"timeout": timeout})

        async def ask() -> httpx2.Response:
            return await self.sdk.post(path, cast_to=httpx2.Response, body=body, options=options)

        return await self._post((path, timeout, tuple(headers)), body, headers, ask)

    async def _post(
        self,
        kind: Any,
        body: Any,
        headers: Mapping[str, str],
        ask: Callable[[], Awaitable["httpx2.Response"]],
    ) -> "httpx2.Response":
        """Send a request; `ask` has the SDK send it. None is no kind."""
        pattern = self._patterns.get(kind)
        content = None if pattern is None else _encoded(body)
        if pattern is not None and content is not None:
            return await self._send(pattern, content, headers)
        response = await ask()
        if kind is not None and kind not in self._patterns:
            self._patterns[kind] = self._learn(response.request, body, headers)
        return response

    def _learn(
        self, sent: "httpx2.Request", body: Any, headers: Mapping[str, str]
    ) -> _Pattern | None:
        """Return what requests have in common with one that the SDK has sent for `body`.

        None: it has sent another body.
        """
        if len(self._patterns) >= _MOST_KINDS:
            self._patterns.clear()
        content = _encoded(body)
        if content is None or json.loads(content) != json.loads(sent.content):
            return None
        if not _is_sdks(type(self.sdk).post, type(self.sdk).request):
            return None
        own = _OF_ONE.union(name.lower() for name in headers)
        kept = [(name, value) for name, value in sent.headers.multi_items() if name not in own]
        return _Pattern(sent.url, kept, {"timeout": sent.extensions["timeout"]})

    async def _send(
        self, pattern: _Pattern, content: bytes, headers: Mapping[str, str]
    ) -> "httpx2.Response":
        """Send a request of a known kind; the exceptions are the SDK's."""
        import httpx2
        import openai

        request = httpx2.Request(
            "POST",
            pattern.url,
            headers=[*pattern.headers, *headers.items()],
            content=content,
            cookies=self._http.cookies or None,
            extensions=dict(pattern.extensions),
        )
        try:
            response = await self._http.send(request)
        except httpx2.TimeoutException as error:
            raise openai.APITimeoutError(request=request) from error
        except httpx2.RequestError as error:
            raise openai.APIConnectionError(request=request) from error
        if not response.is_success:
            words = f"Error code: {response.status_code}"
            raise openai.APIStatusError(words, response=response, body=response.text)
        return response


def _kind_of(create: Create, request: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
    """Return what requests that differ in their body alone share; None: this request is alone."""
    own = request.get("extra_headers") or {}
    query = request.get("extra_query") or {}
    try:
        if headers and not {name.lower() for name in headers}.isdisjoint(map(str.lower, own)):
            return None
        method = create.__wrapped__  # type: ignore[attr-defined]
        if type(method) is not MethodType or not _is_sdks(method.__func__):
            return None
        names = tuple(request), tuple(request.get("extra_body") or ())
        sending = request.get("timeout"), tuple(own.items()), tuple(query.items())
        kind = (method.__func__, names, sending, tuple(headers))
        hash(kind)
    except (AttributeError, TypeError):
        return None
    return kind


@lru_cache(64)
def _is_sdks(*functions: Any) -> bool:
    """Return whether these are the SDK's: tools that trace calls put others in their place."""
    import openai

    home = str(Path(openai.__file__).parent)
    return all(
        type(each) is FunctionType and each.__code__.co_filename.startswith(home)
        for each in functions
    )


def _encoded(body: Any) -> bytes | None:
    """Encode a body as the SDK does; None for what the SDK alone can encode, or refuse."""
    try:
        return _encoder.encode(body).encode()
    except (TypeError, ValueError, RecursionError):
        return None
