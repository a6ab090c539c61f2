"""A bad network in front of a server: latency, connections that are half open, resets."""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from tests.support.valkey import HOST, free_port

Mode = Literal["pass", "swallow"]

_CHUNK: Final = 65_536


@dataclass
class Counts:
    """Deeds of the proxy so far, so that a test can tell that its fault has struck."""

    #: Connections accepted, and those of them that were reset.
    connections: int = 0
    resets: int = 0
    #: Pieces of data that were passed on, passed on late, and dropped.
    passed: int = 0
    delayed: int = 0
    swallowed: int = 0


class Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = (client, server)
        #: Forgotten by the network: it stays open, and nothing comes through any more.
        self.dead = False

    def reset(self) -> None:
        """Close both ends with RST instead of FIN."""
        for end in self._ends:
            sock = end.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()

    def close(self) -> None:
        """Close both ends."""
        for end in self._ends:
            end.close()


class Proxy:
    """Passes TCP on loopback to a server's port, as well or as badly as it is told; use `with`.

    It runs in a thread of its own; its methods may be called from any.
    """

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self.counts = Counts()
        self._target = target
        self._random = random.Random(seed)
        self._mode: Mode = "pass"
        self._latency = 0.0
        self._reset_share = 0.0
        self._pairs: set[Pair] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, HOST, self.port))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def heal(self) -> None:
        """Pass everything on again. What was half open meanwhile stays dead, as it would."""
        self._call(self._become("pass"))

    def slow(self, seconds: float) -> None:
        """Let everything take so much longer, each way."""
        self._call(self._become("pass", latency=seconds))

    def swallow(self) -> None:
        """Half-open: accept and keep connections, and let nothing come through them any more.

        A connection that was open meanwhile is dead for good: neither end is told.
        """
        self._call(self._become("swallow"))

    def reset(self, share: float = 1.0) -> None:
        """Reset this share of the open connections now, and of the new ones until `heal`."""
        self._call(self._become("pass", reset_share=share))

    async def _become(self, mode: Mode, *, latency: float = 0.0, reset_share: float = 0.0) -> None:
        self._mode, self._latency, self._reset_share = mode, latency, reset_share
        for pair in list(self._pairs):
            self._strike(pair)

    def _strike(self, pair: Pair) -> None:
        """Do to a connection what the mode does to those that are open."""
        pair.dead = pair.dead or self._mode == "swallow"
        if self._random.random() < self._reset_share:
            self.counts.resets += 1
            pair.reset()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()  # nobody listens behind us, and nobody does here
            return
        pair = Pair(writer, server_writer)
        self._pairs.add(pair)
        self._strike(pair)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(pair, reader, server_writer))
                both.create_task(self._pump(pair, server_reader, writer))
        except* OSError:
            pass
        finally:
            self._pairs.discard(pair)
            pair.close()

    async def _pump(
        self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass one direction on; its end is passed on too, and ends the pair."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                if due > loop.time():
                    self.counts.delayed += 1
                    await asyncio.sleep(due - loop.time())
                if pair.dead:
                    self.counts.swallowed += 1
                    continue
                writer.write(data)
                with suppress(OSError):  # its own direction has seen the end, or soon will
                    await writer.drain()
                self.counts.passed += 1

        delivering = asyncio.create_task(deliver())
        try:
            while data := await reader.read(_CHUNK):
                queue.put_nowait((loop.time() + self._latency, data))
        finally:
            delivering.cancel()
        if pair.dead:
            await asyncio.Event().wait()  # the other end never hears of it
        raise ConnectionError("one end has closed")

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for pair in list(self._pairs):
            pair.reset()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)
