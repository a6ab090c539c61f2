"""What the items of a process tell the ledger, and ask of it: few round trips, full ones.

One thread talks to the ledger: while one round trip is under way, what ends and what may start is
collected here for the next.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.storage.item_leases import Claim, Exchange, Keeping, Receipt
from batchord.worker.execution.checkpointer import Keeper
from batchord.worker.execution.deferral import Aside, put_aside
from batchord.worker.execution.lease_heartbeat import Leases
from batchord.worker.execution.work_items import Finished, Wanted

#: Settlements and claims of one round trip at most, so that none is long on its way.
MOST_AT_ONCE: Final = 1000

#: Verdicts that come with a lease.
HELD: Final = ("run", "lost", "suspect", "same")

T = TypeVar("T")


class Unanswered(NamedTuple):
    """What nobody knows the ledger's answer to."""

    finished: Sequence[Finished]
    wanted: Sequence[Wanted]
    error: Exception


class Answers(NamedTuple):
    """What the ledger has said."""

    aside: Sequence[tuple[Aside, Exception | None]] = ()
    settled: Sequence[tuple[Finished, Receipt]] = ()
    claimed: Sequence[tuple[Wanted, Claim]] = ()
    unanswered: Unanswered | None = None


class Mail:
    """Collects what goes with the next round trip, and makes it. Used on the loop alone."""

    def __init__(self, exchange: Exchange, leases: Leases, keeper: Keeper) -> None:
        self._exchange = exchange
        self._leases = leases
        self._keeper = keeper
        self.finished: list[Finished] = []
        self.wanted: list[Wanted] = []
        self.aside: list[Aside] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    @property
    def waits(self) -> bool:
        """Whether there is something to tell or to ask."""
        return bool(self.finished or self.wanted or self.aside or self._keeper.any_due)

    async def round_trip(self) -> Answers:
        """Tell and ask what there is by now, or as much of it as goes at once.

        Never raises: what went wrong belongs to the tasks that wait for these items.
        """
        # First, before anything else of what cannot succeed now is claimed.
        aside = await self._put_aside() if self.aside else []
        finished, self.finished = _split(self.finished)
        wanted, self.wanted = _split(self.wanted)
        keepings = self._keeper.take()
        try:
            receipts, claims = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._swap, finished, wanted, keepings
            )
        except Exception as error:  # noqa: BLE001
            self._keeper.not_sent(keepings)
            return Answers(aside, unanswered=Unanswered(finished, wanted, error))
        self._keeper.sent()
        return Answers(
            aside,
            list(zip(finished, receipts, strict=True)),
            list(zip(wanted, claims, strict=True)),
        )

    async def hand_back(self, mine: Sequence[Wanted]) -> None:
        """Release what is held, as if it had never come here; what its steps have given is kept."""
        self._leases.drop(one.wish for one in mine)
        keepings = [*self._keeper.take(), *(one.keeping for one in mine if one.keeping is not None)]
        await asyncio.get_running_loop().run_in_executor(
            self._thread, self._release, mine, keepings
        )

    def _release(self, mine: Iterable[Wanted], keepings: Sequence[Keeping]) -> None:
        self._exchange.keep(keepings)
        self._exchange.release(one.wish for one in mine)

    async def _put_aside(self) -> list[tuple[Aside, Exception | None]]:
        aside, self.aside = self.aside, []
        keepings = [*self._keeper.take(), *(one.keeping for one in aside)]
        refused: Mapping[str, Exception] = {}
        try:
            refused = await asyncio.get_running_loop().run_in_executor(
                self._thread, put_aside, self._exchange, self._leases, aside, keepings
            )
            self._keeper.sent()
        except Exception as raised:  # noqa: BLE001
            self._keeper.not_sent(keepings)
            refused = {one.wish.batch_id: raised for one in aside}
        return [(one, refused.get(one.wish.batch_id)) for one in aside]

    def _swap(
        self, finished: Sequence[Finished], wanted: Sequence[Wanted], keepings: Sequence[Keeping]
    ) -> tuple[list[Receipt], list[Claim]]:
        """Ask the ledger, in its thread; leases are renewed from the claim to the settlement."""
        if finished:
            crash_point("before-settle")
        receipts, claims = self._exchange.swap(
            [one.settlement() for one in finished], [one.wish for one in wanted], keepings
        )
        if finished:
            crash_point("after-settle")
        if any(receipt.shard_complete for receipt in receipts):
            crash_point("last-settle")
        if any(claim.verdict == "run" for claim in claims):
            crash_point("after-claim")
        self._leases.drop(one.wish for one in finished)
        self._leases.hold(
            one.wish for one, claim in zip(wanted, claims, strict=True) if claim.verdict in HELD
        )
        return receipts, claims


def _split(asked: list[T]) -> tuple[list[T], list[T]]:
    """What goes with this round trip, and what with the next."""
    return asked[:MOST_AT_ONCE], asked[MOST_AT_ONCE:]
