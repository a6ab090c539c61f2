"""Checkpoints: outputs of running items' steps, on their way to the ledger."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from batchord.chains.runtime.background import call_later, call_soon_threadsafe
from batchord.chains.runtime.checkpoints import Checkpoints
from batchord.chains.runtime.item_context import ItemContext, item_name
from batchord.ledger.storage.item_transitions import Checkpoint, Claim, ClaimRequest

#: Seconds before a step's output is recorded: most items end within them, and need no checkpoint.
BEHIND: Final = 0.02


class Checkpointer:
    """Creates the contexts of a process's items, and collects their checkpoints.

    `on_due` is called, on the loop, once a checkpoint is due.
    """

    def __init__(self, on_due: Callable[[], None]) -> None:
        self._on_due = on_due
        #: Running items with new step outputs, and those whose checkpoint is due.
        self._fresh: dict[int, tuple[ClaimRequest, ItemContext]] = {}
        self._due: dict[int, tuple[ClaimRequest, ItemContext]] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: Checkpoints of failed attempts for the next round trip, and those that failed to be sent.
        self._last: list[Checkpoint] = []
        self._again: list[Checkpoint] = []

    def begin(self, claim_request: ClaimRequest, claim: Claim) -> ItemContext:
        """Return the context of a claimed item, with its earlier attempts' checkpoints."""
        loop = asyncio.get_running_loop()
        name = f"{claim_request.batch_id}:{claim_request.index}"

        def on_news() -> None:
            if _runs_here(loop):
                self._noted(claim_request, run)
            else:
                # A step may run on a thread of its own.
                call_soon_threadsafe(loop, self._noted, claim_request, run)

        run = ItemContext(
            kept=Checkpoints(name, claim.steps, on_news),
            usage=claim.used,
            name=item_name(claim_request.batch_id, claim_request.index),
        )
        return run

    def leave(self, claim_request: ClaimRequest, run: ItemContext) -> None:
        """Send the run's checkpoint before the settlement of its item."""
        last = checkpoint(claim_request, run)
        if last.steps:
            self._last.append(last)

    def end(self, run: ItemContext) -> None:
        """Forget a run whose attempt is over, and its unsent checkpoint."""
        self._fresh.pop(id(run), None)
        self._due.pop(id(run), None)
        run.kept = None

    @property
    def any_due(self) -> bool:
        """Return whether a checkpoint is due."""
        return bool(self._due)

    def take(self) -> list[Checkpoint]:
        """Return the checkpoints that are due; those of one item in order."""
        due, self._due = self._due, {}
        last, self._last = self._last, []
        return [
            *self._again,
            *(checkpoint(claim_request, run) for claim_request, run in due.values()),
            *last,
        ]

    def sent(self) -> None:
        """Forget the taken checkpoints: the ledger has them."""
        self._again = []

    def not_sent(self, taken: Sequence[Checkpoint]) -> None:
        """Send the taken checkpoints once more with the next round trip, unchanged.

        If the ledger has received them after all, it records them once (keep.lua). A checkpoint
        that failed twice is given up, so that memory is bounded by two round trips.
        """
        before = {id(one) for one in self._again}
        self._again = [one for one in taken if id(one) not in before]

    def _noted(self, claim_request: ClaimRequest, run: ItemContext) -> None:
        if run.kept is None:
            return
        self._fresh[id(run)] = (claim_request, run)
        if self._timer is None:
            self._timer = call_later(BEHIND, self._come_due)

    def _come_due(self) -> None:
        self._timer = None
        self._due |= self._fresh
        self._fresh = {}
        if self._due:
            self._on_due()


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the code runs on this loop, and not in a thread beside it."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def checkpoint(claim_request: ClaimRequest, run: ItemContext) -> Checkpoint:
    """Make a checkpoint: step outputs since the last checkpoint, and all usage so far."""
    return Checkpoint(
        claim_request=claim_request,
        steps="" if run.kept is None else run.kept.news(),
        usage=run.usage,
    )
