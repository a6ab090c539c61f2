"""The circuit: what no item can succeed with stops the batch, and costs no item its place."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from chains.usage import Usage
from ledger.exchange import Exchange, Wish
from ledger.models import ItemError, PauseReason
from worker.leases import Leases
from worker.work import Work

logger = logging.getLogger(__name__)


class Tripped(NamedTuple):
    """An item whose provider wants a person to act: on the key, the quota, the model."""

    work: Work
    wish: Wish
    error: ItemError
    used: Usage | None = None


def open_circuit(exchange: Exchange, leases: Leases, tripped: Sequence[Tripped]) -> None:
    """Pause the batches of these items and put the items back, as if they had not been started.

    Raises:
        LedgerUnavailable: their leases run out, and they are started again.
    """
    first = {one.wish.batch_id: one for one in reversed(tripped)}
    for batch_id, one in first.items():
        reason = PauseReason(code=one.error.code, message=one.error.message, index=one.wish.index)
        # First: what is put back may be claimed at once.
        exchange.pause(batch_id, reason)
        logger.warning("batch paused batch=%s code=%s", batch_id, one.error.code)
    leases.drop(one.wish for one in tripped)
    exchange.release((one.wish, one.used) for one in tripped)
