"""A server in a process of its own that lives no longer than we do.

It says where it listens as `NAME=value` lines up to an empty one on stdout, and ends when its
stdin closes: we hold the other end, which closes with us however we end. It has a session of its
own, as Ctrl-C is for us, who still need it while we drain.
"""

import queue
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Self

from batchord.chains.errors import BatchordError


class ChildError(BatchordError):
    """The process did not come up; the message is what it said."""


class Service(ABC):
    """A process that runs for the time of a `with` block."""

    @abstractmethod
    def start(self) -> None:
        """Return when it serves."""

    @abstractmethod
    def stop(self) -> None:
        """Leave no process."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Child:
    """`python -m MODULE ARGS`, from its greeting to its end."""

    def __init__(self, module: str, args: Sequence[str], *, start_timeout: float) -> None:
        self._command = [sys.executable, "-P", "-m", module, *args]
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """The process; None if it is not running."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def start(self) -> dict[str, str]:
        """Return what it greets with, once it serves; ChildError if it does not come up."""
        # A file, since a pipe that nobody reads would stop a talkative server.
        with tempfile.TemporaryFile("w+", errors="replace") as complaints:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                start_new_session=True,
            )
            try:
                greeting = self._greeting(self._process)
                if not greeting:
                    complaints.seek(0)
                    said = [line for line in complaints.read().splitlines() if line.strip()]
                    raise ChildError(
                        said[-1].removeprefix("Error: ") if said else "no reason given"
                    )
                return greeting
            except BaseException:
                self.stop()
                raise

    def stop(self, grace: float = 3.0) -> None:
        """Leave no process: close its stdin, and kill it if it has not ended after `grace` s."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _greeting(self, process: subprocess.Popen[str]) -> dict[str, str]:
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_pour, args=(process.stdout, lines), daemon=True).start()
        greeting: dict[str, str] = {}
        try:
            while line := lines.get(timeout=self._start_timeout):
                name, _, value = line.partition("=")
                greeting[name] = value
        except queue.Empty:
            raise ChildError(f"it did not come up within {self._start_timeout:g} s") from None
        return greeting


def wait_for_parent() -> None:
    """In the child: return when the parent is gone or closes our stdin."""
    while sys.stdin.buffer.read(4_096):
        pass


def _pour(stdout: IO[str], lines: "queue.SimpleQueue[str]") -> None:
    """Each line up to the first empty one or the end, then an empty line."""
    for line in stdout:
        if not line.strip():
            break
        lines.put(line.rstrip("\n"))
    lines.put("")
