"""Items that a process gives back to the ledger without an outcome and without cost."""

import asyncio
from collections.abc import Callable, Iterable

from batchord.chains.runtime.background import spawn
from batchord.worker.execution.ledger_batcher import LedgerBatcher
from batchord.worker.execution.work_items import HandedBack, PendingItem, TaskState


class HandedBackItems:
    """Collects such items, and releases them.

    `item_ended` is told of each with `HandedBack`, or with the error if its lease must run out;
    `done` is called when nothing is left to release.
    """

    def __init__(
        self,
        ledger_batcher: LedgerBatcher,
        item_ended: Callable[[TaskState, BaseException], None],
        done: Callable[[], None],
    ) -> None:
        self._ledger_batcher = ledger_batcher
        self._item_ended = item_ended
        self._done = done
        self._items: list[PendingItem] = []
        self._releasing: asyncio.Task[None] | None = None
        self._closing = False

    def __bool__(self) -> bool:
        return bool(self._items) or self._releasing is not None

    def add(self, items: Iterable[PendingItem]) -> None:
        """Collect items, to be released by `release_soon` or `close`."""
        self._items += items

    def release_soon(self) -> None:
        """Start to release what is collected."""
        if self._releasing is None:
            self._releasing = spawn(self._release_all())

    async def close(self) -> None:
        """Release all items; return when that is recorded.

        Raises:
            LedgerUnavailable: their leases run out.
        """
        self._closing = True
        if self._releasing is not None:
            await asyncio.wait([self._releasing], timeout=1)
        items, self._items = self._items, []
        await self._ledger_batcher.hand_back(items)
        for one in items:
            self._item_ended(one.slot.task_state, HandedBack())

    async def _release_all(self) -> None:
        try:
            while self._items and not self._closing:
                await asyncio.sleep(0)  # what was cut short at the same time goes along
                items, self._items = self._items, []
                error: Exception = HandedBack()
                try:
                    await self._ledger_batcher.hand_back(items)
                except Exception as raised:  # noqa: BLE001
                    error = raised  # their leases run out
                for one in items:
                    self._item_ended(one.slot.task_state, error)
        finally:
            self._releasing = None
            self._done()
