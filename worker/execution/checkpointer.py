"""What the steps of running items give, on its way to the ledger."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from batchord.chains.runtime.background import call_later, call_soon_threadsafe
from batchord.chains.runtime.checkpoints import Checkpoints
from batchord.chains.runtime.item_context import ItemContext, item_name
from batchord.ledger.storage.item_leases import Checkpoint, Claim, ClaimRequest

#: Seconds after which what a step has given is kept: most items have ended by then, and need not.
BEHIND: Final = 0.02


class Checkpointer:
    """Makes the runs of a process's items, and says what of them is to be kept by now.

    `on_due` is called, on the loop, once there is something.
    """

    def __init__(self, on_due: Callable[[], None]) -> None:
        self._on_due = on_due
        #: Running items with news, and those whose news are due.
        self._fresh: dict[int, tuple[ClaimRequest, ItemContext]] = {}
        self._due: dict[int, tuple[ClaimRequest, ItemContext]] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: What goes with the next round trip, before anything else, and what has failed to go once.
        self._last: list[Checkpoint] = []
        self._again: list[Checkpoint] = []

    def begin(self, claim_request: ClaimRequest, claim: Claim) -> ItemContext:
        """Return the run of an item that was claimed, with what earlier attempts have left."""
        loop = asyncio.get_running_loop()
        name = f"{claim_request.batch_id}:{claim_request.index}"

        def on_news() -> None:
            # A step may run on a thread of its own.
            call_soon_threadsafe(loop, self._noted, claim_request, run)

        run = ItemContext(
            kept=Checkpoints(name, claim.steps, on_news),
            usage=claim.used,
            name=item_name(claim_request.batch_id, claim_request.index),
        )
        return run

    def leave(self, claim_request: ClaimRequest, run: ItemContext) -> None:
        """Have what the run's steps have given go before the settlement of its item."""
        last = checkpoint(claim_request, run)
        if last.steps:
            self._last.append(last)

    def end(self, run: ItemContext) -> None:
        """Forget a run whose attempt is over, and what of it is not on its way."""
        self._fresh.pop(id(run), None)
        self._due.pop(id(run), None)
        run.kept = None

    @property
    def any_due(self) -> bool:
        """Whether something is to be kept now."""
        return bool(self._due)

    def take(self) -> list[Checkpoint]:
        """Return what is to be kept now; of one item, what was given first stands first."""
        due, self._due = self._due, {}
        last, self._last = self._last, []
        return [
            *self._again,
            *(checkpoint(claim_request, run) for claim_request, run in due.values()),
            *last,
        ]

    def sent(self) -> None:
        """Forget what was taken: the ledger has it."""
        self._again = []

    def not_sent(self, taken: Sequence[Checkpoint]) -> None:
        """Have what was taken go once more with the next round trip, in the same words.

        Should the ledger have heard it all the same, it keeps it once (keep.lua). What has failed
        to go twice is given up, so that no more is held than two round trips carry.
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


def checkpoint(claim_request: ClaimRequest, run: ItemContext) -> Checkpoint:
    """Make a checkpoint: step outputs since the last checkpoint, and all usage so far."""
    return Checkpoint(
        claim_request=claim_request,
        steps="" if run.kept is None else run.kept.news(),
        usage=run.usage,
    )
