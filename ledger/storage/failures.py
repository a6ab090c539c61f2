"""Failed items across batches, by chain and code."""

from typing import Final

from batchord.ledger.core.arguments import check_int
from batchord.ledger.models import Frozen
from batchord.ledger.storage.batch_search import BatchSearch
from batchord.ledger.storage.batch_store import BatchStore

#: Batches that are read at a time.
_PAGE: Final = 100


class FailureSum(Frozen):
    """Failed items of one chain whose errors have one code, across batches."""

    chain: str
    code: str
    items: int
    batches: int
    #: The newest batch with such an item, and the first such items in it, at most five.
    batch_id: str
    first: list[int]


def failures_of(store: BatchStore, *, limit: int) -> list[FailureSum]:
    """Return what has failed in the newest `limit` batches with failed items, most items first.

    Of a batch, the codes that its statistics count; nothing of its items is read.
    """
    check_int("limit", limit, 1)
    search, after, left = BatchSearch(store), None, limit
    sums: dict[tuple[str, str], FailureSum] = {}
    while left > 0:
        found = search.find(limit=min(left, _PAGE), after=after, with_failures=True)
        for record, progress in found.batches:
            for group in progress.failures:
                key = (record.chain, group.code)
                newest = FailureSum(
                    chain=record.chain,
                    code=group.code,
                    items=0,
                    batches=0,
                    batch_id=record.id,
                    first=group.first,
                )
                known = sums.get(key, newest)
                counts = {"items": known.items + group.count, "batches": known.batches + 1}
                sums[key] = known.model_copy(update=counts)
        left -= len(found.batches)
        after = found.next
        if after is None:
            break
    return sorted(sums.values(), key=lambda one: (-one.items, one.chain, one.code))
