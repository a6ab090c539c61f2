"""Steering a batch: pause, resume, cancel, and bringing to its end what was cancelled or expired.

Producers call it for their users and the sweep for what a crash left half done; every step may be
repeated, by whomever.
"""

import secrets
from collections.abc import Collection
from typing import Final

from celery import Celery

from batchord.chains import Usage
from batchord.ledger.broker.publisher import publish_shards, publish_tasks, unsettled_tasks
from batchord.ledger.budget import Budget, checked
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.errors import LedgerUnavailable, ResumeRefused, RetryRefused, UnknownBatch
from batchord.ledger.lifecycle.completion_callback import end_batch
from batchord.ledger.models import BatchRecord, BatchStatus, Mode
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.keys import EVENTS_KEPT, PAGE_SIZE
from batchord.ledger.storage.mappers import reading
from batchord.ledger.storage.provider_parts import ProviderParts

#: How often failed items are moved again because the server went back meanwhile.
_MOST_MOVES: Final = 10


class BatchControl:
    """What may be done to a sealed batch. Each call returns its status afterwards.

    Raises:
        UnknownBatch: there is no such batch.
    """

    def __init__(self, app: Celery, store: BatchStore) -> None:
        self._app = app
        self._store = store
        self._reader = BatchReader(store)

    def pause(self, batch_id: str) -> BatchStatus:
        """Let no new item start until the batch is resumed; what runs may end."""
        return self._step("pause", batch_id)

    def resume(self, batch_id: str, budget: Budget | None = None) -> BatchStatus:
        """Let a paused batch go on where it was; a `budget` stands in for its own.

        Raises:
            ResumeRefused: it has used as much as the budget is.
            SubmitRefused: that is no budget.
        """
        limits: list[str] = []
        if (given := checked(budget)) is not None:
            fields = given.fields()
            limits = [fields.get(name, "") for name in ("budget_tokens", "budget_nanos")]
        status = self._step("resume", batch_id, *limits)
        if status is BatchStatus.IN_PROGRESS:
            self.republish(batch_id)
            publish_shards(self._app, self._store, batch_id)
        return status

    def cancel(self, batch_id: str) -> BatchStatus:
        """Let no new item start, have what runs stopped, and end the batch with what is done.

        It is `cancelled` at once if nothing runs, else soon after.
        """
        status = self._step("cancel", batch_id)
        if status is BatchStatus.CANCELLING:
            self.wind_up(batch_id)
            status = self._reader.status(batch_id)
        return status

    def expire(self, record: BatchRecord) -> bool:
        """Begin to end a batch whose completion window is over.

        False if the window is not over, or if each item has an outcome.
        """
        keys = self._store.keys.batch(record.id)
        return bool(self._store.run("expire", [keys.meta, keys.events], EVENTS_KEPT))

    def wind_up(self, batch_id: str) -> bool:
        """Give what has no outcome its own, and commit; False if items still run.

        In provider mode what the provider has answered comes first: it is paid for.
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
        """Publish the tasks again of what was published and has no outcome; return how many."""
        count = 0
        for shard in self._reader.open_shards(batch_id):
            tasks = unsettled_tasks(self._store, batch_id, shard)
            if tasks:
                publish_tasks(self._app, self._store, batch_id, shard, tasks)
            count += len(tasks)
        return count

    def retry_failed(self, batch_id: str, codes: Collection[str] | None = None) -> int:
        """Have failed items of a completed batch run again, in place; return how many.

        `codes`: only those whose error has one of these codes, so that no code is no item; None:
        all.

        Raises:
            RetryRefused: the batch has not completed.
        """
        record = self._reader.record(batch_id)
        if record.status is not BatchStatus.COMPLETED:
            raise RetryRefused(batch_id, record.status)
        if not record.request_counts.failed or (codes is not None and not codes):
            return 0
        keys = self._store.keys.batch(batch_id)
        retried = self._move(record, codes)
        # What was to be done is done; if there was nothing, the batch ends as it was.
        self._store.run("finish", [keys.meta, keys.events], EVENTS_KEPT, 1)
        publish_shards(self._app, self._store, batch_id)
        self.end_if_finalizing(record)
        return retried

    def _move(self, record: BatchRecord, codes: Collection[str] | None) -> int:
        """Open a completed batch again and queue its failed items; return how many.

        How many is what the ledger says, not the sum of its answers: one may be lost, and a server
        that goes back amid it undoes what it has answered. Then it is done again.
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
        """Commit the batch if each of its items has an outcome."""
        if self._reader.status(record.id) is not BatchStatus.FINALIZING:
            return False
        return self._commit(record)

    def finish(self, record: BatchRecord) -> bool:
        """Commit a batch whose shards are all closed, which a crash has left as it was."""
        keys = self._store.keys.batch(record.id)
        self._store.run("finish", [keys.meta, keys.events], EVENTS_KEPT, 0)
        return self.end_if_finalizing(record)

    def _commit(self, record: BatchRecord) -> bool:
        return end_batch(self._app, self._store, record)

    def _step(self, name: str, batch_id: str, *args: str) -> BatchStatus:
        self._reader.status(batch_id)  # raises for what is no batch, before a key is named after it
        keys = self._store.keys.batch(batch_id)
        with reading(batch_id):
            status = self._store.run(name, [keys.meta, keys.events], EVENTS_KEPT, *args)
            if not status:
                raise UnknownBatch(batch_id)
            if status == "over":
                raise ResumeRefused(batch_id, _used(self._reader.record(batch_id)))
            return BatchStatus(status)

    def _end_page(self, batch_id: str, start: int, stop: int) -> int:
        keys, page = self._store.keys.batch(batch_id), start // PAGE_SIZE
        names = [keys.meta, keys.outcomes(page), keys.runs, keys.leases, keys.done, keys.events]
        names.append(keys.due)
        return int(self._store.run("end_page", names, EVENTS_KEPT, start, stop))


def _used(record: BatchRecord) -> str:
    usage = record.usage or Usage()
    tokens = f"{usage.total_tokens or 0:,} tokens"
    return tokens if usage.cost_nanos is None else f"${usage.cost_nanos / 1e9:.6g} and {tokens}"
