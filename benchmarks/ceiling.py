"""How fast the chat provider can be: asked by a client that only writes and reads bytes."""

import asyncio
import json
import time
from typing import Final

from benchmarks import procfs
from benchmarks.arena import Arena, Row

REQUESTS: Final = 10_000
CONNECTIONS: Final = 50


class Asker(asyncio.Protocol):
    """Sends the same request again as soon as it is answered, this many times."""

    def __init__(self, request: bytes, times: int) -> None:
        self._request = request
        self._left = times
        self._transport: asyncio.WriteTransport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """An answer is short: it comes in one piece."""
        self._left -= 1
        if self._transport is not None and self._left:
            self._transport.write(self._request)
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """All answers have come, or the provider has hung up."""
        if self._left:
            self.ended.set_exception(error or ConnectionError(f"{self._left} are not answered"))
        else:
            self.ended.set_result(None)


def ceiling(arena: Arena) -> Row:
    """Return how long requests without a wait take, and the provider's CPU."""
    before = procfs.cpu_seconds(arena.llm.pids())
    start = time.perf_counter()
    asyncio.run(_blast(arena.llm_url))
    seconds = time.perf_counter() - start
    after = procfs.cpu_seconds(arena.llm.pids())
    return {
        "case": "provider",
        "competitor": "chat provider",
        "items": REQUESTS,
        "seconds": seconds,
        "cpu_llm": None if before is None or after is None else after - before,
    }


async def _blast(url: str) -> None:
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    messages = [{"role": "user", "content": "Describe item 0000000 in one sentence, please."}]
    body = json.dumps({"model": "instant", "messages": messages}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}"
    request = head.encode() + b"\r\n\r\n" + body
    loop = asyncio.get_running_loop()
    askers = [
        await loop.create_connection(
            lambda: Asker(request, REQUESTS // CONNECTIONS), host, int(port)
        )
        for _ in range(CONNECTIONS)
    ]
    await asyncio.gather(*(asker.ended for _, asker in askers))
