"""Workers that are kept running: whichever dies is started again, as a supervisor would."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.support.background import Background
from tests.support.harness import Deployment, Process

#: Seconds between two looks.
_LOOK: Final = 0.05


class Crew(Background):
    """`size` workers of a deployment, each replaced as soon as its main process has ended."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        size: int = 1,
        pool: str = "asyncio",
        concurrency: int = 4,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """`command`: other workers than ours, as what follows `python -m`."""
        super().__init__()
        self._deployment = deployment
        self._pool = pool
        self._concurrency = concurrency
        self._env = {"BATCHORD_CHAINS": "tests.chains_for_tests.journal", **(env or {})}
        self._command = command
        self._lock = threading.Lock()
        self._workers = [self._start() for _ in range(size)]
        self.replaced = 0

    def look(self) -> None:
        """Replace who has ended."""
        for place, worker in enumerate(self.workers):
            if not worker.alive:
                worker.kill()  # its children, whom it may have left behind
                fresh = self._start()
                with self._lock:
                    self._workers[place] = fresh
                self.replaced += 1

    def left(self) -> None:
        """Leave no worker."""
        for worker in self.workers:
            worker.kill()

    @property
    def workers(self) -> list[Process]:
        """Those of now."""
        with self._lock:
            return list(self._workers)

    @property
    def ready(self) -> bool:
        """Whether all of them take messages."""
        return all(" ready." in worker.log for worker in self.workers)

    @property
    def log(self) -> str:
        """Return the logs of all workers, those that have ended included."""
        return "".join(process.log for process in self._deployment.processes)

    def kill(self, number: int) -> None:
        """kill -9 one of them, with its children; it is replaced."""
        self.workers[number].kill()

    def _start(self) -> Process:
        if self._command is not None:
            return self._deployment.start(self._command, "worker", env=dict(self._env))
        return self._deployment.start_worker(
            concurrency=self._concurrency,
            pool=self._pool,
            env=dict(self._env),
            wait=False,
        )


def wait(condition: Callable[[], bool], *, timeout: float) -> bool:
    """Wait until the condition holds; return whether it did in time."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(_LOOK)
    return False


def takes(crew: Crew, place: int) -> bool:
    """Whether a worker has taken a message."""
    return " received" in crew.workers[place].log
