"""Looks at a running match again and again: memory, and how long the queue is."""

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from benchmarks import procfs
from benchmarks.arena import Match

Sample = dict[str, Any]


class Sampler:
    """Samples of a match while the block runs, one every so many seconds.

    A sample has the seconds since the start, `rss_*` of workers, caller and server, the server's
    `used_memory`, and the messages that are `queued`.
    """

    def __init__(self, match: Match, *, every: float) -> None:
        self.samples: list[Sample] = []
        self._match = match
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        # Looked up once: to search for them at each sample would itself be a load.
        self._pids = {name: pids for name, pids in self._match.pids().items() if name != "llm"}
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.samples.append(self._look())

    def most(self, name: str) -> int | None:
        """Return the greatest value seen."""
        seen: list[int] = [sample[name] for sample in self.samples if sample[name] is not None]
        return max(seen) if seen else None

    def _run(self) -> None:
        while not self._stop.is_set():
            self.samples.append(self._look())
            self._stop.wait(self._every)

    def _look(self) -> Sample:
        arena = self._match.arena
        memory = {f"rss_{name}": procfs.rss(pids) for name, pids in self._pids.items()}
        return {
            "t": round(time.monotonic() - self._start, 2),
            **memory,
            "used_memory": arena.used_memory(),
            "queued": self._queued(self._match.competitor.queues),
        }

    def _queued(self, queues: Sequence[str]) -> int | None:
        if not queues:
            return None
        with self._match.arena.redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.llen(queue)
            return int(sum(pipe.execute()))
