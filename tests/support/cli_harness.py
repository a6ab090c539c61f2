"""The command line as a person has it: the console script in a folder, with a home of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any

from tests.support.fork_server import SCRIPT, Forked, can_fork
from tests.support.harness import CHAINS, fork_server
from tests.support.waiting import wait_until

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Answer:
    """The exit code and the output of a command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as the one JSON value that it must be."""
        return json.loads(self.out)


def _listen() -> None:
    # A session of tests that runs in the background ignores these; what it tests must not.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Running:
    """A command that runs, with its output in files.

    `forks`: whether a process may be forked for it that has imported its libraries.
    """

    def __init__(
        self, argv: list[str], folder: Path, env: dict[str, str], log: Path, *, forks: bool = True
    ) -> None:
        self._files = [log.with_suffix(".out"), log.with_suffix(".err")]
        out, err = (file.open("wb") for file in self._files)
        theirs, ours = os.pipe()
        with out, err:
            self._popen = _start(argv, folder, env, [theirs, out.fileno(), err.fileno()], forks)
        os.close(theirs)
        self.stdin: IO[bytes] = os.fdopen(ours, "wb", buffering=0)
        self.pid = self._popen.pid

    @property
    def out(self) -> str:
        return self._files[0].read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._files[1].read_text(errors="replace")

    @property
    def ended(self) -> bool:
        return self._popen.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self._popen.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the end and return the exit code; minus the signal that ended it."""
        return self._popen.wait(timeout)

    def wait_for(self, text: str, *, times: int = 1, timeout: float = 30.0) -> None:
        """Return when it has said `text`, this many times, on stdout or stderr."""
        wait_until(
            lambda: (self.out + self.err).count(text) >= times or self.ended,
            what=f"it says {text!r}",
            timeout=timeout,
        )
        assert (self.out + self.err).count(text) >= times, f"it ended instead:\n{self.err}"

    def close(self) -> None:
        """Leave neither the process nor an open pipe."""
        self._popen.kill()
        self._popen.wait()
        self.stdin.close()


def _start(
    argv: list[str], folder: Path, env: dict[str, str], files: list[int], forks: bool
) -> "subprocess.Popen[bytes] | Forked":
    if forks and can_fork(argv, env):
        return fork_server.start(argv, env=env, cwd=folder, files=files)
    stdin, stdout, stderr = files
    return subprocess.Popen(
        argv, cwd=folder, env=env, stdin=stdin, stdout=stdout, stderr=stderr, preexec_fn=_listen
    )


class Shell:
    """A folder to work in, an empty home, a folder for temporary files, and nothing inherited."""

    def __init__(self, folder: Path, **env: str) -> None:
        self._root = folder
        self.folder, self.home, self.tmp = folder / "work", folder / "home", folder / "tmp"
        self.folder.mkdir(parents=True)
        self.tmp.mkdir()
        self._running: list[Running] = []
        self._numbers = count()
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BATCHORD_", "OPENAI_"))
        } | {
            "BATCHORD_HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "TERM": "xterm-256color",
            **env,
        }

    def run(self, *args: object, stdin: str = "", env: Mapping[str, str] | None = None) -> Answer:
        """Run `batchord ARGS` to its end."""
        return self._run([str(BIN / "batchord"), *map(str, args)], stdin, env)

    def script(self, text: str, *, env: Mapping[str, str] | None = None) -> Answer:
        """Run a script; an exception that is not caught is exit code 1 and a traceback."""
        return self._run([*SCRIPT, text], "", env)

    def start(self, *args: object, program: str = "batchord", forks: bool = True) -> Running:
        """Start `batchord ARGS`, or another program of the environment."""
        return self._start([str(BIN / program), *map(str, args)], self.env, forks=forks)

    def _run(self, argv: list[str], stdin: str, env: Mapping[str, str] | None) -> Answer:
        running = self._start(argv, {**self.env, **(env or {})})
        with suppress(BrokenPipeError), running.stdin as pipe:
            pipe.write(stdin.encode())
        return Answer(running.wait(60), running.out, running.err)

    def _start(self, argv: list[str], env: dict[str, str], *, forks: bool = True) -> Running:
        log = self._root / f"command-{next(self._numbers)}.log"
        running = Running(argv, self.folder, env, log, forks=forks)
        self._running.append(running)
        return running

    def write(self, name: str, lines: Iterable[object]) -> Path:
        """Write a file of JSON lines into the folder; what is text already is taken as it is."""
        path = self.folder / name
        path.write_text(
            "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines)
        )
        return path

    def module(self, name: str, text: str) -> None:
        """Write a module, or with `/` in its name one of a package, into the folder."""
        path = self.folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def processes(self, *words: str) -> dict[int, str]:
        """All living processes that were started here, by whatever, with these words.

        They are known by where they work: Valkey overwrites its environment.
        """
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(self._root):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if all(word in command for word in words):
                        found[int(entry.name)] = command
            except OSError:
                continue
        return found

    def check_nothing_is_left(self, *, timeout: float = 5.0) -> None:
        """Fail unless every process that was started here has ended."""
        wait_until(
            lambda: not self.processes(),
            what=f"no process is left of {self.processes()}",
            timeout=timeout,
        )

    def close(self) -> None:
        """Kill what is left."""
        for running in self._running:
            running.close()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


def results(path: Path) -> list[dict[str, Any]]:
    """The lines of an output file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


__all__ = ["BIN", "CHAINS", "Answer", "Running", "Shell", "results"]
