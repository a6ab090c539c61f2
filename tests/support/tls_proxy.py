"""TLS in front of a server that speaks none, on loopback, with a certificate of one's own."""

import asyncio
import ssl
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final

import trustme

HOST: Final = "localhost"


class TLSProxy:
    """Takes TLS on a port of its own and passes on what is in it; use `with`.

    It runs in a thread. `authority` signs its certificate, which names `host`.
    """

    def __init__(self, server_port: int, authority: trustme.CA, *, host: str = HOST) -> None:
        self.port = 0
        #: Bytes that came out of TLS and went on to the server, in the clear.
        self.passed = 0
        self._server_port = server_port
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(host).configure_cert(self._context)
        self._loop = asyncio.new_event_loop()
        # A client that refuses the certificate is what some tests want.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._connections: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="tls-proxy")

    def __enter__(self) -> "TLSProxy":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        # Called for a connection once its handshake is done, and for no other.
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)  # the transports are closed in the loop's next turn

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        upstream_reader, upstream_writer = await asyncio.open_connection(
            "127.0.0.1", self._server_port
        )
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, upstream_writer, count=True))
                both.create_task(self._pump(upstream_reader, writer, count=False))
        finally:
            self._connections.discard(task)
            for end in (writer, upstream_writer):
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if count:
                    self.passed += len(data)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
