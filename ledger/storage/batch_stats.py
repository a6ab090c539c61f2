"""The progress of a batch, in O(1): its counts, and statistics that each settlement adds to.

`NS:{ID}:stats` is a hash that settle.lua writes and this module reads; retry_shard.lua takes out of
`codes` what is to run again:

    origin       ms     when slot 0 begins: the seal
    width        ms     of a slot: a second, twice as much whenever 120 of them are full
    succeeded:N, failed:N       items that ended so in slot N
    ms:B         how many attempts took 2^(B/4) to 2^((B+1)/4) ms from their claim to their outcome
    attempt:N    how many of them were their item's Nth, from the second on; 10 stands for more, too
    recent       "weight at since": attempts that ended lately, fading with a memory of 30 s; as of
                 `at`, and counted from `since` on (ms)
    codes        JSON object: error code -> [how many items, the first five indexes...]
    restarts     starts of settled items beyond their first: a process died, or an attempt waited
    retried      failed items that `retry_failed` has had run again

A batch of an older version has none of it: what is not known is None, or empty.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from pydantic import Field, computed_field

from batchord.chains import Usage
from batchord.ledger.models import BatchRecord, BatchStatus, Frozen, RequestCounts

#: Milliseconds after which a settled attempt counts 1/e in the rate; as in settle.lua.
_MEMORY: Final = 30_000

#: Attempts that a rate needs to be one: fewer are looked for further back.
_ENOUGH_FADING: Final = 5
_ENOUGH_IN_SLOTS: Final = 20

#: Shorter than that is no time to measure a rate in (ms).
_LEAST_SPAN: Final = 2_000

#: The attempt that stands for all later ones, too; as in settle.lua.
MOST_ATTEMPTS: Final = 10

_TIMED: Final = frozenset({BatchStatus.IN_PROGRESS, BatchStatus.CANCELLING})

#: Codes of failures that a batch counts one by one, at most (CODES in settle.lua); the others
#: are counted together.
COUNTED_CODES = 50


class FailureGroup(Frozen):
    """Failed items of a batch whose errors have one code."""

    code: str
    count: int
    #: The first ones that failed so, at most five, in input order.
    first: list[int]


class Slot(Frozen):
    """The items that ended in a span of time."""

    #: When it begins (UTC, the server's clock).
    at: datetime
    #: How long it is; the last one, how long it has been until now, or was until the batch's end.
    seconds: float
    succeeded: int = 0
    failed: int = 0


class Progress(Frozen):
    """The progress of a batch at this moment."""

    id: str
    status: BatchStatus
    request_counts: RequestCounts
    #: Items that a worker holds now.
    running: int = 0
    #: Items that end per second, over the last half minute or as long as it took to end a few;
    #: None while that is unknown, and for a batch in which nothing runs.
    rate: float | None = None
    #: Seconds until all have ended, should it go on at this rate; None if unknown.
    eta: float | None = None
    #: The codes of what has failed, the most frequent first; at most 51 groups.
    failures: list[FailureGroup]
    #: Seconds from an attempt's start to its outcome, to within a fifth; of all attempts.
    latency_p50: float | None = None
    latency_p95: float | None = None
    #: Sums over all calls; None where none reported any.
    usage: Usage | None = None
    #: From the seal on, at most 120, with those in which nothing ended. A retry adds to it.
    throughput: list[Slot]
    #: How many outcomes took how many starts; `MOST_ATTEMPTS` stands for more, too.
    #: Empty if nothing has run.
    attempts: dict[int, int] = Field(default_factory=dict)
    #: Starts of settled items beyond their first: after a process died, or after a wait.
    restarts: int = 0
    #: Failed items that were run again because someone asked for it.
    retried: int = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cost_usd(self) -> float | None:
        """US dollars; None if the price of any request is unknown."""
        return None if self.usage is None else self.usage.cost_usd


def progress_of(record: BatchRecord, stats: Mapping[str, str], now: int) -> Progress:
    """Return what the batch's record and statistics say, at server time `now` (ms)."""
    rate = _rate(record, stats, now) if record.status in _TIMED else None
    counts = record.request_counts
    running_on = record.status is BatchStatus.IN_PROGRESS and rate
    return Progress(
        id=record.id,
        status=record.status,
        request_counts=counts,
        running=record.running,
        rate=rate,
        eta=(counts.total - counts.done) / rate if running_on and rate else None,
        failures=_failures(stats),
        latency_p50=_percentile(stats, 0.5),
        latency_p95=_percentile(stats, 0.95),
        usage=record.usage,
        throughput=_slots(record, stats, now),
        attempts=_attempts(stats),
        restarts=int(stats.get("restarts", 0)),
        retried=int(stats.get("retried", 0)),
    )


def _failures(stats: Mapping[str, str]) -> list[FailureGroup]:
    codes: dict[str, list[int]] = json.loads(stats.get("codes", "{}"))
    groups = [
        FailureGroup(code=code, count=count, first=sorted(first))
        for code, (count, *first) in codes.items()
    ]
    return sorted(groups, key=lambda group: (-group.count, group.code))


def _attempts(stats: Mapping[str, str]) -> dict[int, int]:
    all_ = sum(int(count) for field, count in stats.items() if field.startswith("ms:"))
    later = {
        int(field.removeprefix("attempt:")): int(count)
        for field, count in stats.items()
        if field.startswith("attempt:")
    }
    first = all_ - sum(later.values())
    return {n: count for n, count in sorted({1: first, **later}.items()) if count}


def _percentile(stats: Mapping[str, str], part: float) -> float | None:
    """Return the duration, in seconds, that this part of all attempts did not exceed."""
    buckets = sorted(
        (int(field[3:]), int(count)) for field, count in stats.items() if field.startswith("ms:")
    )
    rank = part * sum(count for _, count in buckets)
    for bucket, count in buckets:
        if rank <= count:
            return float(2 ** ((bucket + rank / count) / 4) / 1000)
        rank -= count
    return None


def _slots(record: BatchRecord, stats: Mapping[str, str], now: int) -> list[Slot]:
    if "origin" not in stats:
        return []
    origin, width = int(stats["origin"]), int(stats["width"])
    ended = record.ended_at
    until = now if ended is None else int(ended.timestamp() * 1000)
    seen = [int(field.split(":")[1]) for field in stats if field.startswith(("succ", "failed:"))]
    # What was silent since, for longer than there are slots, is not drawn.
    last = max(0, *seen, min((until - origin) // width, 119))
    return [
        Slot(
            at=datetime.fromtimestamp((origin + n * width) / 1000, UTC),
            seconds=(width if n < last else max(1, min(width, until - origin - n * width))) / 1000,
            succeeded=int(stats.get(f"succeeded:{n}", 0)),
            failed=int(stats.get(f"failed:{n}", 0)),
        )
        for n in range(last + 1)
    ]


def _rate(record: BatchRecord, stats: Mapping[str, str], now: int) -> float | None:
    if "recent" not in stats:
        return None
    weight, at, since = map(float, stats["recent"].split(" "))
    weight *= math.exp(min(0.0, at - now) / _MEMORY)
    if weight >= _ENOUGH_FADING and now - since >= _LEAST_SPAN:
        # As if it had always gone on so: what was before `since` is not in the weight.
        return 1000 * weight / (_MEMORY * -math.expm1((since - now) / _MEMORY))
    found = 0
    for slot in reversed(_slots(record, stats, now)):
        found += slot.succeeded + slot.failed
        begun = int(slot.at.timestamp() * 1000)
        if found >= _ENOUGH_IN_SLOTS and now - begun >= _LEAST_SPAN:
            break
    else:
        begun = int(stats["origin"])
    return 1000 * found / max(now - begun, 1) if found else None
