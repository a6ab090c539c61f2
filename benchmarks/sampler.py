"""Looks at a running match again and again: memory, and how long the queue is."""

import time
from collections.abc import Sequence
from typing import Any, Self

from benchmarks import procfs
from benchmarks.arena import Match
from tests.support.background import Background

Sample = dict[str, Any]


class Sampler(Background):
    """Samples of a match while the block runs, again and again.

    A sample has the seconds since the start, `rss_*` of workers, caller and server, the server's
    `used_memory`, and the messages that are `queued`. `every`: seconds between two samples.
    """

    def __init__(self, match: Match, *, every: float) -> None:
        super().__init__()
        self.interval = every
        self.samples: list[Sample] = []
        self._match = match

    def __enter__(self) -> Self:
        # Looked up once: to search for them at each sample would itself be a load.
        self._pids = {name: pids for name, pids in self._match.pids().items() if name != "llm"}
        self._start = time.monotonic()
        self.look()
        return super().__enter__()

    def look(self) -> None:
        """Take a sample."""
        self.samples.append(self._sample())

    def left(self) -> None:
        """Take the last sample."""
        self.look()

    def most(self, name: str) -> int | None:
        """Return the greatest value seen."""
        seen: list[int] = [sample[name] for sample in self.samples if sample[name] is not None]
        return max(seen) if seen else None

    def _sample(self) -> Sample:
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
