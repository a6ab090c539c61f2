"""Counters of all batches, summed up by chain; they only grow, so that rates can be drawn.

A batch is added to `NS:totals` in the step that ends it (commit.lua), with what it has come to
since its last end; what a live one has come to is read from itself, in the same transaction. So
nothing is missed or counted twice as batches end, are retried, or are deleted.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batchord.chains import Usage
from batchord.chains.specs.chain_spec import family
from batchord.ledger.errors import UnreadableBatch
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.keys import SUMMED_IN_META, SUMMED_IN_STATS
from batchord.ledger.storage.mappers import reading

_SUMMED = (*SUMMED_IN_META, *SUMMED_IN_STATS)
_OUTCOMES = (
    ItemStatus.SUCCEEDED,
    ItemStatus.FAILED,
    ItemStatus.CANCELLED,
    ItemStatus.EXPIRED,
)


@dataclass(frozen=True, slots=True)
class ChainTotals:
    """The totals of one chain's batches since the ledger was empty."""

    #: Ends of batches; one whose items were retried has several.
    batches: Mapping[BatchStatus, int]
    #: Outcomes of items; one that was retried has several.
    outcomes: Mapping[ItemStatus, int]
    usage: Usage
    #: Starts of settled items beyond their first.
    restarts: int
    #: Failed items that were run again because someone asked for it.
    retried: int


def totals(store: BatchStore, live: Sequence[str]) -> dict[str, ChainTotals]:
    """Return the totals of each chain that workers have announced or that has had a batch.

    Chains that travel as data are summed up by their kind.

    `live`: the batches that have not ended; one that has ended since is counted as well, and one
    that cannot be read is not.
    """
    redis: Any = store.redis
    with redis.pipeline(transaction=True) as pipe:
        pipe.hgetall(store.keys.totals)
        # Zero is a number, too: a rate needs it before the first count.
        pipe.hkeys(store.keys.chains)
        for batch_id in live:
            keys = store.keys.batch(batch_id)
            pipe.hmget(keys.meta, "chain", "summed", *SUMMED_IN_META)
            pipe.hmget(keys.stats, *SUMMED_IN_STATS)
        ended, announced, *replies = store.replies(pipe)
    sums: dict[str, dict[str, int]] = {chain: {} for chain in announced}
    for name, n in ended.items():
        what, chain = name.split(" ", 1)
        sums.setdefault(chain, {})[what] = int(n)
    for batch_id, meta, stats in zip(live, replies[::2], replies[1::2], strict=True):
        with suppress(UnreadableBatch), reading(batch_id):
            chain, more = _more(meta, stats)
            if chain is not None:  # else it was deleted meanwhile
                of_chain = sums.setdefault(family(chain), {})
                for what, n in more.items():
                    of_chain[what] = of_chain.get(what, 0) + n
    return {chain: _totals(sums[chain]) for chain in sorted(sums)}


def _more(meta: Any, stats: Any) -> tuple[str | None, dict[str, int]]:
    """Return a live batch's chain, and its counts since it last ended."""
    chain, summed, *numbers = meta
    before = _pairs(summed or "")
    found = zip(_SUMMED, [*numbers, *stats], strict=True)
    return chain, {what: int(n or 0) - before.get(what, 0) for what, n in found}


def _pairs(summed: str) -> dict[str, int]:
    words = iter(summed.split())
    return {name: int(n) for name, n in zip(words, words, strict=True)}


def _totals(sums: Mapping[str, int]) -> ChainTotals:
    usage = {name: sums.get(f"usage.{name}") or None for name in Usage.model_fields}
    outcomes = {status: sums.get(status, 0) for status in _OUTCOMES}
    # As they are retried, failed items leave the count of those that have.
    outcomes[ItemStatus.FAILED] += sums.get("retried", 0)
    return ChainTotals(
        batches={
            status: sums[f"batches.{status}"]
            for status in BatchStatus
            if f"batches.{status}" in sums
        },
        outcomes=outcomes,
        usage=Usage(**usage),
        restarts=sums.get("restarts", 0),
        retried=sums.get("retried", 0),
    )
