"""The pages' queries of the ledger: plain dictionaries, made in threads beside Flower's loop.

Without `BATCHORD_FLOWER_PAYLOADS` it reads no input, no outcome, and tells no error's message.
"""

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Literal, ParamSpec, TypeVar

from celery import Celery

from batchord.ledger.budget import Budget
from batchord.ledger.core.message_ids import is_batch_id
from batchord.ledger.errors import LedgerRefused, UnknownBatch
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.models import BatchRecord, BatchStatus, Item, ItemStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.audit import Audit
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_search import BatchSearch
from batchord.ledger.storage.batch_stats import FailureGroup, Progress
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.chain_totals import ChainTotals, totals
from batchord.ledger.storage.fleet import Fleet
from batchord.worker.flower.worker_views import strip

#: Batches of one page, and of one answer of the API.
PAGE: Final = 25
MOST: Final = 100

#: Codes of which the first items are named; the others are counted.
_GROUPS_NAMED: Final = 20

#: Items of a download that are read at a time: of 1 MB each at most.
CHUNK: Final = 100

#: Characters of an input that a page shows.
_INPUT_SHOWN: Final = 2_000

#: Questions that are asked at a time. Threads of our own: a Redis that is silent must not hold
#: those of Flower, which asks workers through them.
_THREADS: Final = 8

P = ParamSpec("P")
T = TypeVar("T")

Action = Literal["cancel", "pause", "resume", "retry"]

_IN_LIST: Final = {"rate", "eta", "cost_usd", "restarts", "retried"}
_IN_DETAIL: Final = _IN_LIST | {"latency_p50", "latency_p95", "throughput", "attempts"}


class Queries:
    """Answers and acts for Flower. Its methods block, but for `ask`; making one is silent."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._store = store = BatchStore(settings)
        self.payloads = settings.flower_payloads
        self.overview = BatchSearch(store)
        self.reader = BatchReader(store)
        self._control = BatchControl(app, store)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="batches")

    async def ask(self, what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have one of the methods below answer in a thread: the loop goes on."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(what, *args, **kwargs))

    def find(
        self,
        *,
        limit: int,
        after: str | None,
        statuses: Collection[BatchStatus],
        text: str,
        with_failures: bool,
    ) -> dict[str, Any]:
        """Return a page of batches, newest first; `next` is where to go on, if there are more.

        `trouble`: why no batch can run now, and the cure; empty if one can. `workers`: those that
        are alive, in short. `others`: batches of this page that another version of Batchord has
        written, which are not shown.
        """
        found = self.overview.find(
            limit=limit, after=after, statuses=statuses, text=text, with_failures=with_failures
        )
        fleet = self._fleet()
        return {
            "batches": [self._batch(record, progress) for record, progress in found.batches],
            "next": found.next,
            "total": found.total,
            "active": found.active,
            "trouble": "" if fleet is None else fleet.trouble(),
            "others": found.others,
            "workers": strip(Fleet({}) if fleet is None else fleet),
        }

    def workers(self) -> dict[str, Any]:
        """Return the workers that are alive, as each has said."""
        fleet = self.reader.fleet()
        return {"workers": fleet.told(), "trouble": fleet.trouble()}

    def batch(self, batch_id: str) -> dict[str, Any]:
        """Return one batch, its failures by code, and its series.

        Raises:
            UnknownBatch: no batch has this id.
            UnreadableBatch: it is damaged.
        """
        record, progress = self.overview.one(batch_id)
        series = progress.model_dump(mode="json", include=_IN_DETAIL)
        failures = self._failures(batch_id, progress.failures)
        audit = [each.model_dump(mode="json") for each in Audit(self._store).of(batch_id)]
        told = {"failures": failures, "trouble": self._trouble(record), "audit": audit}
        return self._batch(record, progress) | series | told

    def _trouble(self, record: BatchRecord) -> str:
        """Return why nothing of a batch runs; empty if something does.

        A paused batch has its own reason. Empty, too, for a Redis user that may not look.
        """
        if record.running or record.status is not BatchStatus.IN_PROGRESS:
            return ""
        fleet = self._fleet()
        return "" if fleet is None else fleet.trouble(record.needs)

    def _fleet(self) -> Fleet | None:
        """Return the workers that are alive; None for a Redis user that may not look."""
        try:
            return self.reader.fleet()
        except LedgerRefused:
            return None

    def totals(self, live: Sequence[str]) -> dict[str, ChainTotals]:
        """Return what all batches have come to, by chain, with these live ones."""
        return totals(self._store, live)

    def act(
        self,
        batch_id: str,
        action: Action,
        codes: Collection[str] | None,
        budget: Budget | None = None,
        by: str | None = None,
    ) -> dict[str, Any]:
        """Do it, and return what to tell: the status then, and how many items run again.

        `codes`: of the items to retry; None: all. `budget`: to resume with; None: as it is. `by`:
        who does it.

        Raises:
            UnknownBatch, RetryRefused, ResumeRefused, SubmitRefused: as `BatchControl` does.
        """
        if not is_batch_id(batch_id):
            raise UnknownBatch(batch_id)
        if action == "retry":
            retried = self._control.retry_failed(batch_id, codes, by=by)
            return {"status": self.reader.status(batch_id), "retried": retried}
        steps: dict[str, Callable[[str], BatchStatus]] = {
            "cancel": partial(self._control.cancel, by=by),
            "pause": partial(self._control.pause, by=by),
            "resume": partial(self._control.resume, budget=budget, by=by),
        }
        return {"status": steps[action](batch_id)}

    def total(self, batch_id: str) -> int:
        """Return how many items there are."""
        return self.reader.record(batch_id).request_counts.total

    def lines(self, batch_id: str, start: int, *, failed: bool) -> bytes:
        """Return what has ended of the `CHUNK` items from `start` on, as JSON lines.

        `failed`: only those that did not succeed.
        """
        items = self.reader.items(batch_id, start, start + CHUNK)
        return b"".join(
            item.model_dump_json().encode() + b"\n"
            for item in items
            if item.status.ended and not (failed and item.status is ItemStatus.SUCCEEDED)
        )

    def _batch(self, record: BatchRecord, progress: Progress) -> dict[str, Any]:
        told = record.model_dump(mode="json", exclude={"idempotency_key", "reason"})
        if (reason := record.reason) is not None:
            # An item's or a provider's error may quote an input; the ledger's words do not.
            shown = self.payloads or reason.origin == "ledger"
            message = reason.message if shown else None
            told["reason"] = {"code": reason.code, "index": reason.index, "message": message}
        else:
            told["reason"] = None
        return told | progress.model_dump(mode="json", include=_IN_LIST)

    def _failures(self, batch_id: str, groups: list[FailureGroup]) -> list[dict[str, Any]]:
        indexes = [index for group in groups[:_GROUPS_NAMED] for index in group.first]
        names = self.overview.custom_ids(batch_id, indexes) if indexes else {}
        more = self._payloads(batch_id, indexes) if self.payloads else {}
        return [
            {
                "code": group.code,
                "count": group.count,
                "first": [
                    {"index": index, "custom_id": names.get(index)} | more.get(index, {})
                    for index in (group.first if place < _GROUPS_NAMED else [])
                ],
            }
            for place, group in enumerate(groups)
        ]

    def _payloads(self, batch_id: str, indexes: list[int]) -> dict[int, dict[str, Any]]:
        """Return errors' messages, attempts and input beginnings, which a setting must allow."""
        found: dict[int, dict[str, Any]] = {}
        for item in self.reader.items_at(batch_id, indexes):
            [text] = self.reader.inputs(batch_id, [item.index])
            found[item.index] = {"attempts": item.attempts, "input": _head(text), **_error(item)}
        return found


def _error(item: Item) -> dict[str, Any]:
    return {} if item.error is None else item.error.model_dump(include={"message", "step"})


def _head(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _INPUT_SHOWN else f"{text[:_INPUT_SHOWN]} ..."
