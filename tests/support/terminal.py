"""A terminal for tests: a command in a pty of its own, and the screen that a person would see."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyte

from tests.support.cli_harness import BIN, Shell
from tests.support.waiting import wait_until

#: What sets a colour, also among other attributes; what moves the cursor or clears.
COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3|4|9|10)[0-9](?:;[0-9;]*)?m")
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Zf-ln-z]|\r(?!\n)")


class Terminal:
    """`batchord ARGS` in a terminal of this many columns; use it with `with`."""

    def __init__(
        self,
        shell: Shell,
        *args: object,
        columns: int = 100,
        rows: int = 30,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.raw = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = _start(
            [str(BIN / "batchord"), *map(str, args)],
            shell.folder,
            {**_without_size(shell.env), "TERM": "xterm-256color", **(env or {})},
            theirs,
        )
        os.close(theirs)
        self._thread = threading.Thread(target=self._read, name="terminal")
        self._thread.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        os.close(self._ours)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen now, without the empty rest."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    @property
    def text(self) -> str:
        """As `lines`, in one."""
        return "\n".join(self.lines)

    def wait_for(self, *parts: str) -> None:
        """Return when all these parts are on the screen at once."""
        wait_until(
            lambda: all(part in self.text for part in parts) or self._process.poll() is not None,
            what=f"{parts} are on the screen",
            timeout=30,
        )
        assert all(part in self.text for part in parts), self.text

    def press_ctrl_c(self) -> None:
        """Press Ctrl-C, which the terminal makes a SIGINT of."""
        os.write(self._ours, b"\x03")

    def type(self, text: str) -> None:
        """Type a text, as on a keyboard."""
        os.write(self._ours, text.encode())

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        code = self._process.wait(30)
        self._thread.join()
        return code

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65_536)
            except OSError:
                return  # the other side has ended
            if not data:
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)


def _without_size(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would be believed before the terminal itself."""
    return {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}


def _start(
    argv: Sequence[str], folder: Path, env: Mapping[str, str], terminal: int
) -> "subprocess.Popen[bytes]":
    def take() -> None:
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    return subprocess.Popen(
        argv,
        cwd=folder,
        env=env,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=take,
    )
