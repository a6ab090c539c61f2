"""Requests on their way to an endpoint: who asks, and what; each blocking endpoint in a thread."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from batchord.gateway.backend import Backend
from batchord.gateway.errors import ApiError, invalid
from batchord.gateway.keys import Tenant

#: Bytes of a JSON body: the largest is a batch's with all its metadata.
_MOST_JSON: Final = 1_000_000

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Call:
    """One request of a tenant."""

    backend: Backend
    tenant: Tenant
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    #: The JSON object of the body; empty without one.
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def actor(self) -> str:
        """The tenant, as a batch's audit lines name it."""
        return f"serve:{self.tenant.name}"


def tenant_of(request: Request) -> Tenant:
    """Return the tenant whose key the request has.

    Raises:
        ApiError: 401, it has none, or one that is not known.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise ApiError(
            401,
            "You didn't provide an API key: send it as Authorization: Bearer YOUR_KEY",
            code="missing_api_key",
        )
    backend: Backend = request.app.state.backend
    tenant = backend.keys.tenant_of(key.strip())
    if tenant is None:
        raise ApiError(
            401, "Incorrect API key provided: this server does not know it", code="invalid_api_key"
        )
    return tenant


def call_of(request: Request, body: Mapping[str, Any] | None = None) -> Call:
    """Return what is asked; raises as `tenant_of` does."""
    return Call(
        request.app.state.backend,
        tenant_of(request),
        request.path_params,
        request.query_params,
        request.headers,
        body or {},
    )


def endpoint(answer: Callable[[Call], Any]) -> Endpoint:
    """Return the endpoint of a blocking function of the call: it returns JSON, or a response."""

    async def serve(request: Request) -> Response:
        call_of(request)  # before the body is read
        body = await _json_of(request) if request.method == "POST" else None
        found = await run_in_threadpool(answer, call_of(request, body))
        return found if isinstance(found, Response) else JSONResponse(found)

    return serve


async def _json_of(request: Request) -> Mapping[str, Any]:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "Content-Encoding is not supported: send the body as it is")
    parts = bytearray()
    try:
        async for chunk in request.stream():
            parts += chunk
            if len(parts) > _MOST_JSON:
                raise ApiError(413, f"The body is larger than {_MOST_JSON:,} bytes")
    except ClientDisconnect:
        raise invalid("The request ended before its body") from None
    if not parts.strip():
        return {}
    try:
        found = json.loads(parts, parse_constant=_refuse)
        # A lone surrogate is in no text that can be recorded, or told again in an answer.
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise invalid("We could not parse the JSON body of your request") from None
    if not isinstance(found, dict):
        raise invalid("The body of the request must be a JSON object")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
