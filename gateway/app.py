"""The ASGI app of `batchord serve`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from batchord.gateway.backend import Backend
from batchord.gateway.batches.create import create
from batchord.gateway.batches.endpoints import cancel, list_batches, retrieve
from batchord.gateway.batches.extensions import pause, progress, resume, retry
from batchord.gateway.batches.validator import Validator
from batchord.gateway.calls import Call, endpoint
from batchord.gateway.errors import HANDLERS
from batchord.gateway.files.content import content
from batchord.gateway.files.endpoints import delete_file, list_files, retrieve_file
from batchord.gateway.files.upload import upload
from batchord.gateway.maintenance import Maintenance
from batchord.gateway.request_ids import RequestIds


def create_gateway(backend: Backend) -> ASGIApp:
    """Return the app: OpenAI's Files and Batch API below /v1, and the health of the server."""
    validator, maintenance = Validator(backend), Maintenance(backend)

    def create_and_wake(call: Call) -> dict[str, Any]:
        made = create(call)
        validator.wake()
        return made

    @asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        validator.start()
        maintenance.start()
        try:
            yield
        finally:
            await run_in_threadpool(validator.stop)
            await run_in_threadpool(maintenance.stop)
            backend.close()

    app = Starlette(
        routes=[
            Route("/healthz", _healthy),
            Route("/readyz", _ready),
            Route("/v1/files", upload, methods=["POST"]),
            Route("/v1/files", endpoint(list_files), methods=["GET"]),
            Route("/v1/files/{id}", endpoint(retrieve_file), methods=["GET"]),
            Route("/v1/files/{id}", endpoint(delete_file), methods=["DELETE"]),
            Route("/v1/files/{id}/content", endpoint(content), methods=["GET"]),
            Route("/v1/batches", endpoint(create_and_wake), methods=["POST"]),
            Route("/v1/batches", endpoint(list_batches), methods=["GET"]),
            Route("/v1/batches/{id}", endpoint(retrieve), methods=["GET"]),
            Route("/v1/batches/{id}/cancel", endpoint(cancel), methods=["POST"]),
            Route("/v1/batches/{id}/pause", endpoint(pause), methods=["POST"]),
            Route("/v1/batches/{id}/resume", endpoint(resume), methods=["POST"]),
            Route("/v1/batches/{id}/retry", endpoint(retry), methods=["POST"]),
            Route("/v1/batches/{id}/progress", endpoint(progress), methods=["GET"]),
        ],
        exception_handlers=HANDLERS,
        lifespan=running,
    )
    # A redirect would name http:// also behind TLS, and SDKs follow it with their key.
    app.router.redirect_slashes = False
    app.state.backend = backend
    return RequestIds(app)


async def _healthy(_: Request) -> Response:
    """Answer that this process is alive."""
    return JSONResponse({"status": "ok"})


async def _ready(request: Request) -> Response:
    """Answer whether Redis and the file store can be used; 503 if not."""
    await run_in_threadpool(request.app.state.backend.check)
    return JSONResponse({"status": "ok"})
