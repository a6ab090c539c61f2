"""The lags of the workers' event loops, as the processes report them."""

from typing import Final

from batchord.ledger.storage.batch_store import BatchStore

#: Seconds that a process is listed after its last word.
KEPT: Final = 60.0


class LoopLags:
    """Tells, and reads, the lag of each process that runs items."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def tell(self, process: str, lag: float) -> None:
        """Record that the loop of this process is late by `lag` seconds."""
        keys, ttl_ms = {"heard": self._store.keys.workers}, int(KEPT * 1000)
        told = int(lag * 1000)
        self._store.transition("heartbeat", keys=keys, process=process, told=told, ttl_ms=ttl_ms)

    def all(self) -> dict[str, float]:
        """Return how late each process's loop was, in seconds, by "host:pid"."""
        with self._store.talking():
            found = self._store.redis.hgetall(self._store.keys.workers)
        oldest = 1000 * (self._store.now() - KEPT)
        told = {str(name): str(text).split() for name, text in found.items()}
        return {
            name: int(lag) / 1000
            for name, (heard, lag) in sorted(told.items())
            if int(heard) >= oldest
        }
