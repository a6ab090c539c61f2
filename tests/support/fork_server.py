"""A server that forks worker processes: what all of them import is imported once.

A worker spends a second of CPU on its imports, and the tests start hundreds of workers. The server
has imported the libraries and nothing that reads the environment (`batchord.worker.app` does). A
forked child is a process of its own session, with the environment, folder and log that it was asked
for, and runs its module as `python -P -m` would. Two things tell it apart: its parent, and the
command line and environment in /proc, which are the server's.
"""

import atexit
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

#: What a worker has imported when it is ready.
IMPORTS: Final = (
    *("celery.apps.worker", "celery.bin.celery", "celery.bin.worker", "celery.events.state"),
    *("celery.concurrency.prefork", "celery.worker.consumer", "celery.worker.components"),
    *("batchord", "batchord.chains", "batchord.chains.steps.raw_request", "openai", "httpx2"),
    *("batchord.ledger.broker.chord_backend", "batchord.ledger.broker.transport"),
    *("batchord.worker.tasks", "batchord.worker.control", "batchord.worker.maintenance.sweep"),
    *("batchord.worker.notifications.dispatcher", "batchord.worker.execution.asyncio_pool"),
)


_PYTHON: Final = (sys.executable, "-P", "-m")


class Forked:
    """A process that the server has forked, with the methods of `subprocess.Popen`."""

    def __init__(self, server: "ForkServer", pid: int) -> None:
        self._server = server
        self.pid = pid

    def poll(self) -> int | None:
        """Return the exit code, minus the signal that ended it; None while it runs."""
        return self._server.code_of(self.pid, within=0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code."""
        seconds = 3600.0 if timeout is None else timeout
        code = self._server.code_of(self.pid, within=seconds)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", seconds)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """A client of the server, which is started with the first process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._codes: dict[int, int] = {}
        self._pids: list[int] = []

    def start(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> Forked:
        """Run a command that `can_fork` in a process of its own session."""
        asked = {
            "argv": list(argv[len(_PYTHON) :]),
            "env": dict(env),
            "cwd": str(cwd),
            "log": str(log),
        }
        log.write_bytes(b"")
        with self._lock:
            line = json.dumps(asked).encode() + b"\n"
            self._connected().sendall(line)
            while not self._pids:
                self._read(within=None)
            return Forked(self, self._pids.pop())

    def code_of(self, pid: int, *, within: float) -> int | None:
        """Return the exit code of a process that ends within `within` seconds."""
        end = time.monotonic() + within
        while True:
            with self._lock:
                self._read(within=0)
                if pid in self._codes:
                    return self._codes[pid]
            if time.monotonic() >= end:
                return None
            time.sleep(0.01)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket, theirs = socket.socketpair()
            with theirs:
                server = subprocess.Popen(
                    [sys.executable, "-P", "-m", "tests.support.fork_server", str(theirs.fileno())],
                    env={name: os.environ[name] for name in os.environ if _is_plain(name)},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            atexit.register(self._close, server)
        return self._socket

    def _close(self, server: subprocess.Popen[bytes]) -> None:
        if self._socket is not None:
            self._socket.close()
        server.wait()

    def _read(self, within: float | None) -> None:
        """Note what the server says, if it says something within `within` seconds (None: ever)."""
        assert self._socket is not None
        while select.select([self._socket], [], [], within)[0]:
            found = self._socket.recv(65536)
            assert found, "the fork server has ended"
            *lines, self._buffer = (self._buffer + found).split(b"\n")
            for line in lines:
                told = json.loads(line)
                if "started" in told:
                    self._pids.append(told["started"])
                else:
                    self._codes[told["ended"]] = told["code"]
            within = 0


def can_fork(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether a forked process does what a new one would.

    It has the variables that Python and Celery read as they are imported.
    """
    read = ("PYTHON", "CELERY", "REMAP_SIGTERM")
    named = {name for name in (*env, *os.environ) if name.startswith(read)}
    worker = list(argv[: len(_PYTHON) + 1]) == [*_PYTHON, "batchord.worker"]
    return worker and all(env.get(name) == os.environ.get(name) for name in named)


def _is_plain(name: str) -> bool:
    return not name.startswith(("BATCHORD_", "OPENAI_"))


def _requests(client: socket.socket, wake: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield what the client asks for, and meanwhile tell it of processes that end."""
    buffer = b""
    while True:
        ready, _, _ = select.select([client, wake], [], [])
        if wake in ready:
            wake.recv(4096)
            for pid, code in _ended():
                _tell(client, ended=pid, code=code)
        if client in ready:
            found = client.recv(65536)
            if not found:
                return
            *lines, buffer = (buffer + found).split(b"\n")
            yield from map(json.loads, lines)


def _ended() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def _tell(client: socket.socket, **what: int) -> None:
    client.sendall(json.dumps(what).encode() + b"\n")


def _become(asked: Mapping[str, Any]) -> list[str]:
    """Make this process what was asked for; return its arguments."""
    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    random.seed()
    arguments: list[str] = asked["argv"]
    return arguments


def _serve(client: socket.socket) -> list[str] | None:
    """Fork for each request; return the arguments in the children, None in the server."""
    wake, waker = socket.socketpair()
    for end in (wake, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for asked in _requests(client, wake):
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (client, wake, waker):
                each.close()
            return _become(asked)
        _tell(client, started=pid)
    return None


def _main() -> None:
    for name in IMPORTS:
        __import__(name)
    assert threading.active_count() == 1, "a library has started a thread"
    gc.freeze()
    arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments is not None:
        module, *sys.argv[1:] = arguments
        # As the main program: it ends as any process does.
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
