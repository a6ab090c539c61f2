"""The supervisor: starts plain Celery workers, and restarts those whose main process exits."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Final

from batchord.worker.execution.resilient_threads import survives

logger = logging.getLogger(__name__)

#: Seconds between two starts of a worker that dies at once; doubled up to the cap.
_BACKOFF: Final = (1.0, 30.0)
#: Seconds that a worker may take to end, before it is killed; above the soft shutdown's.
GRACE: Final = 30.0
#: A worker that lived so long starts again without a wait.
_LONG_LIFE: Final = 60.0


@dataclass
class _Slot:
    number: int
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    wait: float = _BACKOFF[0]
    not_before: float = field(default=0.0)


class Supervisor:
    """Keeps `processes` workers running, each with `concurrency` items in flight.

    They are `celery worker` processes in sessions of their own: a Ctrl-C in the terminal reaches
    only us, and we tell them. Each ends by itself when we are killed.
    """

    def __init__(
        self,
        *,
        processes: int,
        concurrency: int,
        chains: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        log_level: str = "INFO",
        log: IO[bytes] | None = None,
        grace: float = GRACE,
    ) -> None:
        self._slots = [_Slot(number) for number in range(1, processes + 1)]
        self._command = [
            *(sys.executable, "-P", "-m", "batchord.worker"),
            *("--concurrency", str(concurrency), "--loglevel", log_level),
            # Both only tell workers of each other, and cost a second at every start.
            *("--without-gossip", "--without-mingle"),
        ]
        self._environment = {
            # SIGTERM is a soft shutdown: what runs may end, the rest goes back to the queue.
            **os.environ,
            "REMAP_SIGTERM": "SIGQUIT",
            **(environment or {}),
            "BATCHORD_SUPERVISED": str(grace),
        }
        if chains:
            self._environment["BATCHORD_CHAINS"] = ",".join(chains)
        self._log = log
        self._grace = grace
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the workers, and watch over them in a thread.

        One that cannot be started (OSError: no memory, no process left) is tried again later.
        """
        for slot in self._slots:
            self._start(slot)
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Shut the workers down softly; kill what is left after `grace` seconds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        alive = [slot.process for slot in self._slots if slot.process is not None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + self._grace
        for process in alive:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()

    @property
    def pids(self) -> list[int]:
        """The main processes that are alive now."""
        processes = [slot.process for slot in self._slots]
        return [each.pid for each in processes if each is not None and each.poll() is None]

    def ticks(self, seconds: float) -> Iterator[None]:
        """Yield a few times a second, for `seconds`, unless stopped before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stop.wait(0.05):
            yield

    def _start(self, slot: _Slot) -> None:
        slot.started = time.monotonic()
        if not survives(f"start of worker {slot.number}", partial(self._open, slot)):
            slot.not_before = slot.started + slot.wait
            slot.wait = min(2 * slot.wait, _BACKOFF[1])

    def _open(self, slot: _Slot) -> None:
        slot.process = subprocess.Popen(
            [*self._command, "--hostname", f"batchord-{os.getpid()}-{slot.number}@%h"],
            env=self._environment,
            # Held open, never written to: its end tells the worker that we are gone.
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT if self._log is not None else None,
            start_new_session=True,
        )

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            for slot in self._slots:
                survives(f"watch of worker {slot.number}", partial(self._look_after, slot))

    def _look_after(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.process is not None:
            code = slot.process.poll()
            if code is None:
                return
            lived = now - slot.started
            slot.wait = _BACKOFF[0] if lived > _LONG_LIFE else min(2 * slot.wait, _BACKOFF[1])
            slot.not_before = now if lived > _LONG_LIFE else now + slot.wait / 2
            slot.process = None
            logger.warning(
                "worker %s exited with code %s after %.0f s: it is started again",
                slot.number,
                code,
                lived,
            )
        if now >= slot.not_before:
            self._start(slot)
