"""Processes of the benchmark: started in sessions of their own, and always ended."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks import procfs

ROOT: Final = Path(__file__).parent.parent


class Broken(RuntimeError):
    """A process failed or fell silent: the benchmark cannot go on."""


class Process:
    """A process with a session of its own, and its output in a file."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        self.argv = tuple(argv)
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=self._stdout(output),
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def _stdout(self, output: Any) -> Any:
        return output

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def pids(self) -> list[int]:
        """The process and its children."""
        return procfs.members([self.pid]) or [self.pid]

    def stop(self) -> None:
        """Return when nothing of its session is left. Killed: nothing here is worth a farewell."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def broken(self, what: str) -> Broken:
        """Return an error that shows the end of the log."""
        tail = self.log.read_text(errors="replace")[-3000:]
        return Broken(f"{what}\n$ {' '.join(self.argv)}\n{tail}")


class Caller(Process):
    """A competitor's caller: answers a line with a line, see `benchmarks.talk`."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        super().__init__(argv, env=env, log=log)
        self._answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, name="caller", daemon=True).start()

    def _stdout(self, output: Any) -> Any:
        return subprocess.PIPE

    def ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        """Return the answer; each outcome has been checked where there are outcomes.

        Raises:
            Broken: it failed, ended, or did not answer within `timeout` seconds.
        """
        if self._popen.stdin is None:
            raise self.broken("it has no standard input")
        self._popen.stdin.write(json.dumps(request).encode() + b"\n")
        self._popen.stdin.flush()
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise self.broken(f"no answer within {timeout:g} s to {request}") from None
        if line is None:
            raise self.broken(f"it ended at {request}")
        said = json.loads(line)
        if "error" in said:
            raise self.broken(f"it failed at {request}: {said['error']}")
        answer: dict[str, Any] = said["answer"]
        return answer

    def _read(self) -> None:
        if self._popen.stdout is not None:
            for line in self._popen.stdout:
                self._answers.put(line.decode())
        self._answers.put(None)


def wait_until(
    condition: Callable[[], bool], watched: Sequence[Process], what: str, *, timeout: float = 60.0
) -> None:
    """Return when the condition holds.

    Raises:
        Broken: one of the processes ended first, or it took more than `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while not condition():
        for process in watched:
            if not process.alive:
                raise process.broken(f"it ended before {what}")
        if time.monotonic() > end:
            late = f"not within {timeout:g} s: {what}"
            raise watched[0].broken(late) if watched else Broken(late)
        time.sleep(0.02)
