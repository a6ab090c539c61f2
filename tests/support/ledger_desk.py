"""Producers, users and the sweep of one batch, in this process; workers are in `ledger_bench`."""

import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.broker.publisher import publish_shards
from batchord.ledger.budget import Budget
from batchord.ledger.core.message_ids import new_batch_id
from batchord.ledger.core.sharding import Cut
from batchord.ledger.errors import ResumeRefused, RetryRefused, SubmitRefused
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.models import Item
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import Settlement
from batchord.ledger.storage.keys import BatchKeys
from batchord.worker.execution.worker_context import WorkerContext
from batchord.worker.maintenance.sweep import Sweep
from batchord.worker.tasks import commit_if_finalizing
from tests.support.harness import Deployment
from tests.support.ledger_model import LedgerModel
from tests.support.ledger_watch import WatchedStore

#: Items per page, so that a batch of this test has several.
PAGE: Final = 8

#: With dedupe, inputs that differ.
REPEATED: Final = 4

KEY: Final = "key"
CODES: Final = ("bug", "rate_limited")


@dataclass
class Held:
    """An execution: it was let run, and may settle whenever it likes."""

    shard: int
    index: int
    token: str
    attempt: int
    verdict: str
    #: Tokens that the item has used so far, in all attempts.
    used: int = 0
    #: Of an item that gets another one's outcome: "succeed", or that one's code.
    ends: str = ""
    #: Once it has settled.
    told: Settlement | None = None

    def same(self, other: "Held") -> bool:
        """Whether both are one execution."""
        return (self.index, self.token) == (other.index, other.token)


class Desk:
    """Producers and users of the batch, the clock, and the sweep."""

    def __init__(self, deployment: Deployment) -> None:
        settings = deployment.settings
        self.deployment = deployment
        self.redis = deployment.redis
        self.app = create_app(settings)
        self.store = WatchedStore(settings)
        self.item_leases = ItemLeases(self.store)
        self.reader = deployment.client._reader
        self.control = BatchControl(self.app, self.store)
        # What a sweep must wait for is over at once; whose lease is over is the test's to say.
        hasty = {"lease": 1e-6, "sweep_interval": 1e-9, "stall_timeout": 1e-9}
        self._runtime = WorkerContext(settings.model_copy(update=hasty), app=self.app)
        self._runtime.store = self.store
        self._sweep = Sweep(self.app, self._runtime)
        self._tokens = itertools.count()
        self.batch_id = ""
        self.named = False
        #: Of tokens; None: none.
        self.budget: int | None = None
        self.dedupe = False
        self.held: list[Held] = []

    def watch_for_alike(self, limit: int) -> None:
        """Have a batch pause whose first items, this many of them, fail alike; 0: none does."""
        self.store.settings = self.store.settings.model_copy(update={"alike_limit": limit})

    def close(self) -> None:
        self.store.close()
        self.app.close()

    def clear(self) -> None:
        """Begin afresh, with an empty ledger and an empty queue."""
        # What kombu has declared stays: it does not look whether it is there.
        keys = [key for key in self.redis.scan_iter(count=1000) if not key.startswith("_kombu")]
        if keys:
            self.redis.delete(*keys)
        self.store.model = LedgerModel(self.store.settings.max_attempts)
        self.batch_id, self.held, self._tokens = "", [], itertools.count()

    @property
    def model(self) -> LedgerModel:
        return self.store.model

    @property
    def keys(self) -> BatchKeys:
        return self.store.keys.batch(self.batch_id)

    @property
    def key(self) -> str | None:
        """The batch's idempotency key."""
        return KEY if self.named else None

    # Producers and users.

    def open(self, *, named: bool) -> None:
        self.store.model = LedgerModel(self.store.settings.max_attempts)
        self.batch_id, self.named, self.held = new_batch_id(), named, []
        fields = {"chain": "echo"}
        if self.budget is not None:
            fields |= Budget(tokens=self.budget).fields()
            self.model.budget = self.budget
        if self.dedupe:
            fields["dedupe"] = "1"
            self.model.dedupe = True
        if named:
            fields["idempotency_key"] = KEY
            self.redis.delete(self.store.keys.idempotency(KEY))
            assert self.store.take_key(KEY, self.batch_id) == self.batch_id
        self.store.open(self.batch_id, fields, key=self.key)

    def submit(
        self, total: int, named: bool, cut: Cut, window: float | None, far: str = "sealed"
    ) -> None:
        """As a producer does; or only as far as `open` or `written`."""
        self.open(named=named)
        while far != "open" and len(self.model.inputs) < total:
            self.append(total - len(self.model.inputs))
        if far == "sealed":
            self.seal(cut, window)

    def append(self, count: int) -> None:
        """Write this many more inputs, as far as the page goes."""
        start = len(self.model.inputs)
        some = range(start, min(start + count, (start // PAGE + 1) * PAGE))
        ids = [f"id-{i}" for i in some] if self.named else None
        self.store.append(self.batch_id, start, [self._input(i) for i in some], ids)

    def _input(self, index: int) -> str:
        return f'"input {index % REPEATED if self.dedupe else index}"'

    def append_repeated(self) -> None:
        """As a producer whose custom_id comes twice, and who takes the batch back."""
        try:
            self.store.append(self.batch_id, len(self.model.inputs), ['"input"'], ["id-0"])
        except SubmitRefused:
            self.abort()

    def abort(self) -> None:
        self.store.abort(self.batch_id)
        if self.key is not None:
            self.store.free_key(KEY, self.batch_id)

    def seal(self, cut: Cut, window: float | None) -> None:
        total = len(self.model.inputs)
        self.store.seal(
            self.batch_id,
            total=total,
            cut=cut,
            key=self.key,
            window=window,
            with_ids=self.named,
        )
        self.publish()

    def publish(self) -> None:
        publish_shards(self.app, self.store, self.batch_id)

    def cancel(self) -> None:
        self.control.cancel(self.batch_id)

    def pause(self) -> None:
        self.control.pause(self.batch_id)

    def resume(self, more: int | None = None) -> None:
        """Resume; `more`: with a budget of this many tokens above what is used."""
        budget = None if more is None else Budget(tokens=max(1, self.model.calls + more))
        with suppress(ResumeRefused):
            self.control.resume(self.batch_id, budget)

    def retry(self, codes: Sequence[str] | None = None) -> None:
        with suppress(RetryRefused):
            self.control.retry_failed(self.batch_id, codes)

    def purge(self) -> None:
        total = len(self.model.inputs)
        self.store.purge(self.batch_id, total=total, key=self.key)

    # The sweep.

    def sweep(self) -> None:
        self._sweep.turn()

    def commit(self, *, blindly: bool) -> None:
        """As a gather or the sweep does; or as one of them that has looked long ago."""
        if blindly:
            self.store.commit(self.batch_id, total=len(self.model.inputs), key=self.key)
        else:
            commit_if_finalizing(self._runtime, self.batch_id)

    # Time passes.

    def leases_end(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            run = self.model.runs.get(index)
            if run is not None and run.lease == "alive":
                self.redis.zadd(self.keys.leases, {str(index): 1}, xx=True)
                run.lease = "over"

    def what_waits_comes_due(self) -> None:
        for index, run in self.model.runs.items():
            if run.lease == "waits":
                self.redis.zadd(self.keys.due, {str(index): 1}, xx=True)
                run.lease = "due"
        for index, state in self.model.idle.items():
            if state == "waits":
                self.redis.zadd(self.keys.due, {str(index): 1}, xx=True)
                self.model.idle[index] = "due"

    def publisher_falls_silent(self) -> None:
        if self.redis.hexists(self.keys.meta, "publishing_until"):
            self.redis.hset(self.keys.meta, "publishing_until", 1)
            self.model.publishing = False

    def retrier_falls_silent(self) -> None:
        if self.redis.hexists(self.keys.meta, "retrying_until"):
            self.redis.hset(self.keys.meta, "retrying_until", 1)
            self.model.retrying = "over"

    def window_ends(self) -> None:
        if self.redis.hexists(self.keys.meta, "expires_at"):
            self.redis.hset(self.keys.meta, "expires_at", 1)
            self.model.window_over = True

    def producer_falls_silent(self) -> None:
        self.redis.hset(self.keys.meta, "touched_at", 1)
        self.model.silent = True

    # Looking at it from outside.

    def items(self) -> list[Item]:
        return self.reader.items_at(self.batch_id, range(len(self.model.inputs)))

    def done(self) -> list[str]:
        """The indexes in the order in which they were settled."""
        return list(self.redis.lrange(self.keys.done, 0, -1))

    def active(self) -> bool:
        """Whether the sweep looks after the batch."""
        return self.redis.zscore(self.store.keys.active, self.batch_id) is not None
