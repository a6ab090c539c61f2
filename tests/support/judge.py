"""Judges of a batch after its faults: by what its items wrote outside of Redis, and by its record.

The same judge reads what a plain Celery chord left, which has no record.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchord.ledger.models import BatchStatus, Item, ItemStatus
from batchord.producer import Batch


@dataclass(frozen=True, slots=True)
class Journal:
    """Traces of items: how often each was started, and how often it came to its end."""

    starts: Counter[int]
    ends: Counter[int]
    #: When items were started, by the machine's monotonic clock.
    started_at: Sequence[float] = ()

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """Read the file; there need not be one."""
        counts: dict[str, Counter[int]] = {"start": Counter(), "end": Counter()}
        started_at = []
        for line in path.read_text().splitlines() if path.exists() else ():
            word, index, _, at = line.split()
            counts[word][int(index)] += 1
            if word == "start":
                started_at.append(float(at))
        return cls(starts=counts["start"], ends=counts["end"], started_at=started_at)

    @property
    def repeated(self) -> int:
        """Effects beyond the one that each item has."""
        return sum(count - 1 for count in self.ends.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings about a batch."""

    items: int
    #: Items without an outcome, or with a value that nobody has made.
    lost: int
    #: Effects that happened again.
    repeated: int
    #: Starts of the item that was started most often.
    most_starts: int
    problems: Sequence[str] = field(default=())

    @property
    def good(self) -> bool:
        """Whether the promise was kept."""
        return not self.problems


def judge(
    connection: Any,
    batch: Batch,
    journal: Path,
    *,
    max_attempts: int = 3,
    failed: Mapping[int, str] | None = None,
) -> Verdict:
    """Judge a batch of the chain `work` that has ended. Each item's input names its own index.

    `connection`: one of the judge's own, to look at the keys. `failed`: the codes of those that
    must have failed, by index.
    """
    failed = failed or {}
    written = Journal.read(journal)
    record = batch.record()
    items = list(batch.results())
    total = record.request_counts.total
    problems = []
    if record.status is not BatchStatus.COMPLETED:
        problems.append(f"the batch is {record.status}")
    if [item.index for item in items] != list(range(total)):
        problems.append("the items are not one for each index, in order")
    lost = [item for item in items if not _as_expected(item, failed, written)]
    if lost:
        some = ", ".join(f"{item.index} {_how(item)}" for item in lost[:10])
        problems.append(f"lost or wrong: {some}")
    most = max(written.starts.values(), default=0)
    if most > max_attempts:
        problems.append(f"an item was started {most} times")
    problems += problems_of_the_record(connection, batch)
    return Verdict(total, len(lost), written.repeated, most, problems)


def _how(item: Item) -> str:
    return item.error.code if item.error is not None else item.status.value


def _as_expected(item: Item, failed: Mapping[int, str], written: Journal) -> bool:
    if item.index in failed:
        return item.error is not None and item.error.code == failed[item.index]
    return (
        item.status is ItemStatus.SUCCEEDED
        and item.output == item.index
        and written.ends[item.index] > 0
    )


def problems_of_the_record(connection: Any, batch: Batch) -> list[str]:
    """Return the faults in the record of a completed batch, whatever its chain."""
    total = batch.record().request_counts.total
    keys = f"batchord:{{{batch.id}}}"
    problems = []
    done = sorted(int(index) for index in connection.lrange(f"{keys}:done", 0, -1))
    if done != list(range(total)):
        problems.append(f"{len(done)} outcomes were recorded for {total} items")
    statuses = [fields.get("status") for _, fields in connection.xrange(f"{keys}:events")]
    if statuses.count("completed") != 1:
        problems.append(f"committed {statuses.count('completed')} times")
    if connection.exists(f"{keys}:leases", f"{keys}:runs", f"{keys}:open"):
        problems.append("something is still held, or open")
    return problems


def judge_results(results: Sequence[Any] | None, total: int, journal: Path) -> Verdict:
    """Judge what a plain chord gave, or None if it gave nothing: the same promise, no record."""
    written = Journal.read(journal)
    lost = [index for index in range(total) if not written.ends[index]]
    problems = [f"never came to their end: {lost[:10]}"] if lost else []
    if results is None:
        problems.append("no result: it waits for ever, or was given up")
    elif list(results) != list(range(total)):
        problems.append("the results are not one for each index, in order")
    most = max(written.starts.values(), default=0)
    return Verdict(total, len(lost), written.repeated, most, problems)
