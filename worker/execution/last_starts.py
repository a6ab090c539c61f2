"""Items on their last start, which run one at a time and with nothing else in their process.

What kills its process then is found out, and no other item is blamed for it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from batchord.chains.runtime.background import call_later
from batchord.ledger.storage.item_transitions import ClaimRequest
from batchord.worker.execution.running_attempts import RunningAttempts
from batchord.worker.execution.work_items import PendingItem, Slot

logger = logging.getLogger(__name__)


class LastStarts:
    """The items that wait to run alone, and the one that does.

    Items beside a waiting one are cut short after `seconds`, so that it need not wait for the
    slowest, unless `closing`.
    """

    def __init__(
        self, running: RunningAttempts, seconds: float, closing: Callable[[], bool]
    ) -> None:
        self._running = running
        self._seconds = seconds
        self._closing = closing
        self.waiting: deque[PendingItem] = deque()
        #: What runs alone now.
        self.alone: ClaimRequest | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether nothing else may begin."""
        return bool(self.waiting) or self.alone is not None

    def next(self) -> PendingItem:
        """Take the next item out, to be claimed as one that runs alone."""
        suspect = self.waiting.popleft()
        self.alone = replace(suspect.claim_request, alone=True)
        return PendingItem(Slot(suspect.slot.task_state, 1), self.alone)

    def ended(self, claim_request: ClaimRequest) -> None:
        """Let the next item start if `claim_request` was the one that ran alone."""
        if claim_request is self.alone:
            self.alone = None

    def drain(self) -> None:
        """Start the timer after which the items beside a waiting one are handed back."""
        if self._timer is None:
            self._timer = call_later(self._seconds, self._cut_short)

    def _cut_short(self) -> None:
        self._timer = None
        if not self.waiting or self.alone is not None or self._closing():
            return
        self.drain()  # an item may go on although it is cancelled
        if count := self._running.cut_all_short():
            logger.warning(
                "%d items handed back after %g s: an item on its last start must run alone",
                *(count, self._seconds),
            )
