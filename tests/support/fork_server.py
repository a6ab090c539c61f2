"""A server that forks workers, commands and scripts: what all of them import is imported once.

Each spends a second of CPU on its imports, and the tests start a thousand. The server has imported
the libraries and nothing that reads the environment (`batchord.worker.app` does). A forked child is
a process of its own session, with the environment, folder and files that it was asked for, and runs
its program as a new process would. Two things tell it apart: its parent, and the command line and
environment in /proc, which are the server's.
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

#: What workers and commands have imported when they are ready.
IMPORTS: Final = (
    *("celery.apps.worker", "celery.bin.celery", "celery.bin.worker", "celery.events.state"),
    *("celery.concurrency.prefork", "celery.worker.consumer", "celery.worker.components"),
    *("batchord", "batchord.chains", "batchord.chains.steps.raw_request", "openai", "httpx2"),
    *("batchord.ledger.broker.chord_backend", "batchord.ledger.broker.transport"),
    *("batchord.worker.tasks", "batchord.worker.control", "batchord.worker.maintenance.sweep"),
    *("batchord.worker.notifications.dispatcher", "batchord.worker.execution.asyncio_pool"),
    *("batchord.cli", "batchord.producer", "batchord.worker.supervisor"),
    *(f"batchord.commands.{name}" for name in ("run", "one_machine", "submit", "batches")),
    *(f"batchord.commands.{name}" for name in ("results", "control", "maintenance")),
)

WORKER: Final = (sys.executable, "-P", "-m", "batchord.worker")
#: The console script.
COMMAND: Final = (str(Path(sys.executable).parent / "batchord"),)
#: A script, whose text follows; its folder is in `sys.path`, as that of a script is.
SCRIPT: Final = (sys.executable, "-c")


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

    def kill(self) -> None:
        """End it at once, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """A client of the server, which is started with the first process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._codes: dict[int, int] = {}
        self._pids: list[int] = []

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, files: Sequence[int]
    ) -> Forked:
        """Run a command that `can_fork` in a process of its own session.

        `files`: what it has as stdin, stdout and stderr; the caller closes its own.
        """
        asked = {"argv": list(argv), "env": dict(env), "cwd": str(cwd)}
        with self._lock:
            line = json.dumps(asked).encode() + b"\n"
            sent = socket.send_fds(self._connected(), [line], files)
            self._connected().sendall(line[sent:])
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
    known = any(tuple(argv[: len(each)]) == each for each in (WORKER, COMMAND, SCRIPT))
    return known and all(env.get(name) == os.environ.get(name) for name in named)


def _is_plain(name: str) -> bool:
    return not name.startswith(("BATCHORD_", "OPENAI_"))


def _requests(client: socket.socket, wake: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield what the client asks for, and meanwhile tell it of processes that end.

    The client waits for an answer before it asks again: the files that came belong to one request.
    """
    buffer, files = b"", list[int]()
    while True:
        ready, _, _ = select.select([client, wake], [], [])
        if wake in ready:
            wake.recv(4096)
            for pid, code in _ended():
                _tell(client, ended=pid, code=code)
        if client in ready:
            found, came, *_ = socket.recv_fds(client, 65536, maxfds=3)
            if not found:
                return
            buffer += found
            files += came
            if buffer.endswith(b"\n"):
                yield {**json.loads(buffer), "files": files}
                for file in files:
                    os.close(file)
                buffer, files = b"", []


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
    """Make this process what was asked for; return its command line."""
    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    for number, file in enumerate(asked["files"]):
        os.dup2(file, number)
        os.close(file)
    # As a new process of Python has them, also where the tests run in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    random.seed()
    argv: list[str] = asked["argv"]
    return argv


def _serve(client: socket.socket) -> list[str] | None:
    """Fork for each request; return the command line in the children, None in the server."""
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
    argv = _serve(socket.socket(fileno=int(sys.argv[1])))
    if argv is not None:
        _run(argv)


def _run(argv: Sequence[str]) -> None:
    """Run the program as the main one: it ends as any process does."""
    if tuple(argv[: len(SCRIPT)]) == SCRIPT:
        text, *rest = argv[len(SCRIPT) :]
        sys.argv = ["-c", *rest]
        sys.path.insert(0, os.getcwd())
        exec(compile(text, "app.py", "exec"), {"__name__": "__main__"})
    elif tuple(argv[: len(COMMAND)]) == COMMAND:
        sys.argv = ["batchord", *argv[len(COMMAND) :]]
        sys.modules["batchord.cli"].main()
    else:
        *_, module = WORKER
        sys.argv[1:] = argv[len(WORKER) :]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
