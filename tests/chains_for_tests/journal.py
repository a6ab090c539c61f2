"""The chain that faults are tried on: its items leave lines outside of Redis."""

import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from batchord.chains import Chat, register


def write_line(path: str, line: str) -> None:
    """Append one line in one write, so that lines of many processes never mix."""
    with Path(path).open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


async def work(what: dict[str, Any]) -> int:
    """Write `start INDEX PID TIME`, take `seconds`, write `end ...`, and return the index.

    The time is the machine's monotonic clock.

    `poison` names a way to end the process instead: `exit`, `segv` or `memory`; or to harm its
    event loop: `block` holds it up for as long as `hold` says, `stop` and `quit` would end it.
    """
    index, journal = int(what["index"]), str(what["journal"])
    write_line(journal, f"start {index} {os.getpid()} {time.monotonic()}")
    match what.get("poison"):
        case "exit":
            os._exit(9)
        case "segv":
            ctypes.string_at(0)
        case "memory":
            _eat()
        case "block":
            time.sleep(float(what["hold"]))  # noqa: ASYNC251
        case "stop":
            asyncio.get_running_loop().stop()
        case "quit":
            await asyncio.create_task(_quit())
    await asyncio.sleep(float(what.get("seconds", 0.0)))
    write_line(journal, f"end {index} {os.getpid()} {time.monotonic()}")
    return index


async def _quit() -> None:
    sys.exit(9)


def _eat() -> None:
    """Eat memory up to a limit, and die as the kernel would have us die."""
    limit = 2 * _resident()
    resource.setrlimit(resource.RLIMIT_AS, (2**40, resource.RLIM_INFINITY))
    eaten = []
    while _resident() < limit:
        eaten.append(bytearray(2**24))
    # There is no container here whose limit the kernel would enforce: its signal is the same.
    os.kill(os.getpid(), signal.SIGKILL)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def asked(answer: str) -> int:
    """Write the lines of an item whose index and journal a model has echoed; return the index."""
    what = json.loads(answer.removeprefix("echo: "))
    for word in ("start", "end"):
        line = f"{word} {what['index']} {os.getpid()} {time.monotonic()}"
        write_line(what["journal"], line)
    return int(what["index"])


register("work", work)
register("asked", Chat("test-model", timeout=5.0) | asked)
register("work-briefly", work, timeout=2.0)
