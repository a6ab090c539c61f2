"""Control of a batch: pause, resume, cancel, retry, and the end of a cancelled or expired batch.

Producers call it for their users, and the sweep after a crash. Every step may be repeated, by any
process.
"""

import secrets
from collections.abc import Collection
from typing import Final

from celery import Celery

from batchord.chains import Usage
from batchord.ledger.broker.publisher import publish_shards, publish_tasks, unsettled_tasks
from batchord.ledger.budget import Budget, checked
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.errors import (
    DayBudgetUsed,
    LedgerUnavailable,
    ResumeRefused,
    RetryRefused,
    UnknownBatch,
)
from batchord.ledger.lifecycle.completion_callback import end_batch
from batchord.ledger.models import BatchRecord, BatchStatus, Mode
from batchord.ledger.storage.audit import Audit
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_stats import COUNTED_CODES
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.ledger.storage.mappers import reading
from batchord.ledger.storage.provider_parts import ProviderParts

#: Times that failed items are moved again because the server went back meanwhile, at most.
_MOST_MOVES: Final = 10


class BatchControl:
    """Controls sealed batches. `pause`, `resume` and `cancel` return the new status.

    `by`: who acts, for the batch's audit lines; None: the user of this process.

    Raises:
        UnknownBatch: there is no such batch.
    """

    def __init__(self, app: Celery, store: BatchStore) -> None:
        self._app = app
        self._store = store
        self._reader = BatchReader(store)
        self._audit = Audit(store)

    def pause(self, batch_id: str, *, by: str | None = None) -> BatchStatus:
        """Let no new item start until the batch is resumed; running items may end."""
        return self._step("pause", batch_id, by)

    def resume(
        self, batch_id: str, budget: Budget | None = None, *, by: str | None = None
    ) -> BatchStatus:
        """Let a paused batch go on; a `budget` replaces its own.

        Raises:
            ResumeRefused: it has used up its budget, or its tenant the day's.
            SubmitRefused: `budget` is invalid.
        """
        limits: dict[str, str] = {}
        if (given := checked(budget)) is not None:
            limits = {"budget_tokens": "", "budget_nanos": "", **given.fields()}
        status = self._step("resume", batch_id, by, **limits)
        if status is BatchStatus.IN_PROGRESS:
            self.republish(batch_id)
            publish_shards(self._app, self._store, batch_id)
        return status

    def cancel(self, batch_id: str, *, by: str | None = None) -> BatchStatus:
        """Let no new item start, stop running items, and end the batch with the outcomes it has.

        It is `cancelled` at once if no item runs, else soon after.
        """
        status = self._step("cancel", batch_id, by)
        if status is BatchStatus.CANCELLING:
            self.wind_up(batch_id)
            status = self._reader.status(batch_id)
        return status

    def expire(self, record: BatchRecord) -> bool:
        """Begin to end a batch whose completion window is over.

        False if the window is not over, or if each item has an outcome.
        """
        return bool(self._store.transition("expire", record.id))

    def wind_up(self, batch_id: str) -> bool:
        """Give each item without an outcome one, and commit; False if items still run.

        In provider mode the provider's answers are imported first: they are paid for.
        """
        record = self._reader.record(batch_id)
        if record.mode is Mode.PROVIDER and any(ProviderParts(self._store).out(batch_id)):
            return False
        total = record.request_counts.total
        running = 0
        for start in range(0, total, PAGE_SIZE):
            running += self._end_page(batch_id, start, min(start + PAGE_SIZE, total))
            crash_point("wind-up-mid-page")
        if running:
            return False
        return self._commit(record)

    def republish(self, batch_id: str) -> int:
        """Publish again the tasks of published items without an outcome; return their number."""
        count = 0
        for shard in self._reader.open_shards(batch_id):
            tasks = unsettled_tasks(self._store, batch_id, shard)
            if tasks:
                publish_tasks(self._app, self._store, batch_id, shard, tasks)
            count += len(tasks)
        return count

    def retry_failed(
        self, batch_id: str, codes: Collection[str] | None = None, *, by: str | None = None
    ) -> int:
        """Run failed items of a completed batch again, in place; return their number.

        `codes`: only items whose error has one of these codes (an empty collection: no item); None:
        all.

        Raises:
            RetryRefused: the batch has not completed.
        """
        record = self._reader.record(batch_id)
        if record.status is not BatchStatus.COMPLETED:
            raise RetryRefused(batch_id, record.status)
        if not record.request_counts.failed or not self._any_failed(batch_id, codes):
            return 0
        retried = self._move(record, codes)
        self._audit.note(batch_id, "retry", by)
        # All items are moved; if there were no such items, the batch ends as it was.
        self._store.transition("finish", batch_id, ours=1)
        publish_shards(self._app, self._store, batch_id)
        self.end_if_finalizing(record)
        return retried

    def _any_failed(self, batch_id: str, codes: Collection[str] | None) -> bool:
        """Whether an item may have failed with one of the codes; None: with any.

        If not, the batch need not be reopened, which would announce its end once more.
        """
        if not codes:
            return codes is None
        found = {each.code for each in self._reader.progress(batch_id).failures}
        return len(found) >= COUNTED_CODES or not found.isdisjoint(codes)

    def _move(self, record: BatchRecord, codes: Collection[str] | None) -> int:
        """Reopen a completed batch and queue its failed items; return their number.

        The number is the ledger's count and not the sum of its answers: an answer may be lost, and
        a server that goes back meanwhile undoes moves that it has answered. Then they are repeated.
        """
        token = secrets.token_hex(8)
        total, key = record.request_counts.total, record.idempotency_key
        for _ in range(_MOST_MOVES):
            if not self._store.reopen(record.id, total=total, key=key, token=token):
                raise RetryRefused(record.id, self._reader.status(record.id))
            crash_point("retry-half-begun")
            before = self._store.retry_moved(record.id, token)
            shards = self._reader.shards(record.id)
            answers = list(self._store.retry_shards(record.id, shards, codes, token))
            moved = self._store.retry_moved(record.id, token)
            if -1 not in (before, moved, *answers) and moved >= before + sum(answers):
                return moved
        raise LedgerUnavailable(
            f"Redis keeps losing what it is told of batch {record.id}: look at its log, then retry"
        )

    def end_if_finalizing(self, record: BatchRecord) -> bool:
        """Commit the batch if it is `finalizing`; return whether this call did it."""
        if self._reader.status(record.id) is not BatchStatus.FINALIZING:
            return False
        return self._commit(record)

    def finish(self, record: BatchRecord) -> bool:
        """Commit a batch whose shards are all closed, which a crash has left uncommitted."""
        self._store.transition("finish", record.id, ours=0)
        return self.end_if_finalizing(record)

    def _commit(self, record: BatchRecord) -> bool:
        return end_batch(self._app, self._store, record)

    def _step(self, name: str, batch_id: str, by: str | None, **args: str) -> BatchStatus:
        # Raises for an invalid id, before a key is named after it.
        before = self._reader.status(batch_id)
        with reading(batch_id):
            status = self._store.transition(name, batch_id, **args)
            if not status:
                raise UnknownBatch(batch_id)
            if status == "over":
                raise ResumeRefused(batch_id, _used(self._reader.record(batch_id)))
            if status == "over_day":
                raise DayBudgetUsed(batch_id)
            after = BatchStatus(status)
        if after is not before or args:
            self._audit.note(batch_id, name, by)
        return after

    def _end_page(self, batch_id: str, start: int, stop: int) -> int:
        page = start // PAGE_SIZE
        given = {"page": page, "start": start, "stop": stop}
        return int(self._store.transition("end_page", batch_id, **given))


def _used(record: BatchRecord) -> str:
    usage = record.usage or Usage()
    tokens = f"{usage.total_tokens or 0:,} tokens"
    return tokens if usage.cost_nanos is None else f"${usage.cost_nanos / 1e9:.6g} and {tokens}"
