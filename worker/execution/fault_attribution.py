"""Whose fault an error is that a person must mend: the request's, or the account's.

401, 402, 403, 404 and an empty quota may be about one request (moderation, an unknown model) or
about all. What other items of the same batch meet around that time tells.
"""

import asyncio
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from batchord.chains.errors import ChainError, OperatorNeeded
from batchord.chains.explain import PutOff, as_chain_error, explain
from batchord.chains.ratelimit import limits
from batchord.chains.ratelimit.circuit_breaker import OUTAGE_CODES, Event
from batchord.chains.runtime.checkpoints import Checkpoints, Tries

#: Items in a row that meet it, with no success of another one between, until their batch pauses.
IN_A_ROW: Final = 3
#: Seconds until an item that has met it is tried again, to be judged by what the others have met.
FIRST_LOOK: Final = 0.5
LONGEST_LOOK: Final = 8.0
#: Times that one item may pause its batch; then the error is its own.
MOST_PAUSES: Final = 2
#: Batches whose successes are remembered.
MOST_BATCHES: Final = 100

_MET: Final = "~met"
_PAUSED: Final = "~paused"


class Faults:
    """The errors that the items of each batch meet; one object for an event loop."""

    def __init__(self) -> None:
        #: Of each batch: when the successful attempt began that began last, and when one ended.
        self._successes: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._running: Counter[str] = Counter()

    @contextmanager
    def running(self, kept: Checkpoints | None) -> Iterator[None]:
        """Run an attempt of the item inside; it has succeeded if nothing is raised."""
        batch_id, _ = _item(kept)
        began = _now()
        self._running[batch_id] += 1
        try:
            yield
            before, _ = self._successes.pop(batch_id, (began, began))
            self._successes[batch_id] = max(before, began), _now()
            if len(self._successes) > MOST_BATCHES:
                self._successes.popitem(last=False)
        finally:
            self._running[batch_id] -= 1
            if not self._running[batch_id]:
                del self._running[batch_id]

    async def judge(self, error: BaseException, kept: Checkpoints | None) -> BaseException:
        """Return the error in place of what the provider has said of one call of the item.

        OperatorNeeded pauses the batch, PutOff has the item tried again in a moment, and any other
        is the item's own. What the provider has not said of a call stays as it is.
        """
        ours = as_chain_error(error)
        if not isinstance(ours, OperatorNeeded) or kept is None:
            return error
        met = kept.tries(_MET)
        if not ours.of_one_call:
            return _pauses(ours, error, kept)
        batch_id, index = _item(kept)
        health = await limits.limiter().health(f"batch:{batch_id}", self._event(batch_id, index))
        waited = time.time() - met.since
        # A success that began after this item had met it first: the account is well.
        others_succeed = met.count > 0 and 0 <= health.begun < waited
        if others_succeed or kept.tries(_PAUSED).count >= MOST_PAUSES:
            return _own(ours, error)
        others_tell = batch_id in self._running and waited < LONGEST_LOOK
        if health.streak >= IN_A_ROW or (met.count > 0 and not others_tell):
            return _pauses(ours, error, kept)
        kept.tried(_MET, Tries(met.count + 1, met.since))
        longest = min(LONGEST_LOOK, FIRST_LOOK * 2.0**met.count)
        return PutOff(error, longest * random.uniform(0.7, 1.0), outage=True)

    def _event(self, batch_id: str, index: str) -> Event:
        now = _now()
        began, ended = self._successes.get(batch_id, (now + 1, now + 1))
        return Event("failed", now - began, now - ended, who=index)


def _pauses(ours: OperatorNeeded, error: BaseException, kept: Checkpoints) -> BaseException:
    """Return the error that pauses the batch, or the item's own if that has not helped before.

    It pauses always while there is no answer at all: that is never about one item.
    """
    if ours.http_status is None or ours.code in OUTAGE_CODES:
        return error
    paused = kept.tries(_PAUSED)
    if paused.count >= MOST_PAUSES:
        return _own(ours, error)
    kept.tried(_PAUSED, Tries(paused.count + 1, paused.since))
    return error


def _own(ours: OperatorNeeded, error: BaseException) -> ChainError:
    """Return the same error as one of the item alone."""
    step = explain(error).step
    return ChainError(
        str(ours), code=ours.code, http_status=ours.http_status, step=step, raw=ours.raw
    )


def _item(kept: Checkpoints | None) -> tuple[str, str]:
    batch_id, _, index = ("" if kept is None else kept.item).rpartition(":")
    return batch_id, index


def _now() -> float:
    return asyncio.get_running_loop().time()
