"""The report of one task: the results of its items."""

from collections import Counter
from dataclasses import dataclass, field

from batchord.ledger.storage.item_transitions import SettleResult, Verdict


@dataclass(slots=True)
class TaskReport:
    """Counts of a task's items; it is complete when each item is in it once."""

    #: Items that succeeded here.
    succeeded: int = 0
    #: Error codes of the items that failed here.
    failed: Counter[str] = field(default_factory=Counter)
    #: Items that were not claimed, by the ledger's answer.
    refused: Counter[Verdict] = field(default_factory=Counter)
    #: Items that wait for another attempt, by the error's code.
    put_off: Counter[str] = field(default_factory=Counter)
    #: Items whose late outcome was refused: someone else had taken them over.
    taken_over: int = 0
    #: Each item of the shard has an outcome now, and it is on us to say so.
    shard_complete: bool = False

    def add(self, receipt: SettleResult, code: str | None) -> None:
        """Count an item by the ledger's answer to its settlement, and its error's code."""
        if not receipt.recorded:
            self.taken_over += 1
        elif code is None:
            self.succeeded += 1
        else:
            self.failed[code] += 1
        self.shard_complete = self.shard_complete or receipt.shard_complete

    @property
    def elsewhere(self) -> bool:
        """Whether an item was not settled here, nor was settled before."""
        return bool(self.taken_over or self.refused.total() - self.refused["settled"])

    def failures(self) -> str:
        """Format the failures for Celery, Flower and the logs: error codes, never a message."""
        total, failed = self.succeeded + self.failed.total(), self.failed.total()
        if total == 1:
            return next(iter(self.failed))
        codes = ", ".join(f"{code} x{n}" for code, n in self.failed.most_common())
        return f"{failed} of {total} items failed: {codes}"
