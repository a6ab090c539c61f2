"""The attempts that run in a process, by batch, and how they are stopped."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any

from batchord.chains.runtime.background import spawn
from batchord.ledger.models import ItemStatus


class RunningAttempts:
    """The asyncio tasks of running items."""

    def __init__(self) -> None:
        self._by_batch: dict[str, set[asyncio.Task[None]]] = defaultdict(set)
        #: What becomes of the items of a batch that has been stopped.
        self._stopped: dict[str, ItemStatus] = {}
        #: All that were started; one is in `_by_batch` from its first step on.
        self.begun: set[asyncio.Task[None]] = set()
        #: Those that were cancelled to let another item run alone.
        self.cut_short: set[asyncio.Task[None]] = set()

    def begin(self, attempt: Coroutine[Any, Any, None]) -> None:
        """Start an attempt in a task of its own."""
        task = spawn(attempt)
        self.begun.add(task)
        task.add_done_callback(self.begun.discard)

    def add(self, batch_id: str, task: asyncio.Task[None]) -> None:
        """Count a task that has come to its first step."""
        self._by_batch[batch_id].add(task)

    def remove(self, batch_id: str, task: asyncio.Task[None]) -> None:
        """Forget a task that ends."""
        self.cut_short.discard(task)
        running = self._by_batch[batch_id]
        running.discard(task)
        if not running:
            del self._by_batch[batch_id]

    def stop(self, batches: dict[str, ItemStatus]) -> None:
        """Cancel the items of these batches; each gets its batch's status here."""
        self._stopped = batches
        for batch_id in batches:
            # Again at each call: an item may have been claimed just before the batch was stopped.
            for task in self._by_batch.get(batch_id, ()):
                if not task.cancelling():
                    task.cancel()

    def stops_as(self, batch_id: str) -> ItemStatus | None:
        """Return what becomes of a cancelled item of this batch; None: the batch goes on."""
        return self._stopped.get(batch_id)

    def cancel_all(self) -> None:
        """Cancel every attempt that has come to its first step."""
        for tasks in self._by_batch.values():
            for task in tasks:
                task.cancel()

    def cut_all_short(self) -> int:
        """Cancel all attempts to let another item run alone; return their number."""
        running = {task for tasks in self._by_batch.values() for task in tasks}
        self.cut_short |= running
        for task in running:
            task.cancel()
        return len(running)
