"""How the driver talks to a competitor's caller: a line of JSON asked, a line of JSON answered.

Only the standard library is imported here: competitors run in an environment of their own.
"""

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Answer = Mapping[str, Any]


def serve(**verbs: Callable[..., Answer]) -> None:
    """Answer each line of standard input with one line, until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    # Whatever else is printed here must not be taken for an answer.
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        verb = verbs[request.pop("do")]
        try:
            said: Answer = {"answer": dict(verb(**request))}
        except Exception:  # noqa: BLE001
            # The driver shows it, and ends.
            said = {"error": traceback.format_exc()}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


class Spent:
    """Seconds of the clock; set at the end of `spending`."""

    seconds = 0.0

    def row(self, **more: Any) -> dict[str, Any]:
        """Return them, and more, as fields of a row."""
        return {"seconds": self.seconds, **more}


@contextmanager
def spending() -> Iterator[Spent]:
    """Measure what the block takes."""
    spent = Spent()
    start = time.perf_counter()
    yield spent
    spent.seconds = time.perf_counter() - start


def peak_rss() -> int:
    """The most memory that this process has had resident, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: what it tells begins with the peak of the process that started this one.
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def announce() -> None:
    """Tell the driver that one more worker process takes messages."""
    path = os.environ.get("BENCH_READY")
    if path:
        with open(path, "a") as ready:
            ready.write(f"{os.getpid()}\n")
