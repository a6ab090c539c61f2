"""The header `x-request-id` on every answer, by which a caller's question is found in the log."""

import secrets
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchord.gateway.errors import as_api_error


class RequestIds:
    """Middleware around the whole app: names each answer, errors included.

    What went wrong before an answer began becomes an answer here; after that, the connection is
    cut off, so that no caller takes a part for the whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = ended = False
        name = f"req_{secrets.token_hex(16)}"

        async def named(message: Message) -> None:
            nonlocal began, ended
            if message["type"] == "http.response.start":
                began = True
                MutableHeaders(scope=message).setdefault("x-request-id", name)
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            await self._app(scope, receive, named)
        except Exception as error:
            if ended:
                return  # it was logged as it was answered; the connection is as good as before
            if began:
                raise
            answer: Any = as_api_error(error).response()
            await answer(scope, receive, named)
