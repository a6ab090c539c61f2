"""Truths about the ledger at any time, as seen from outside."""

from collections import Counter

from batchord.ledger.models import BatchStatus, Item, ItemStatus
from tests.support.ledger_bench import Bench


class Witness:
    """Looks at a batch after each step, and remembers what it saw."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        #: All outcomes that an item was ever seen to have: this only grows.
        self.seen: dict[int, list[Item]] = {}

    def check(self) -> None:
        """Compare all that is recorded with the model."""
        model = self.bench.model
        if model.status is None:
            assert not self.bench.redis.exists(*self.bench.keys.every(40))
            return
        record = self.bench.reader.record(self.bench.batch_id)
        assert record.status is model.status
        assert model.ended or self.bench.active(), "the sweep has lost sight of it"
        assert (record.ended_at is not None) == model.ended
        if not model.sealed:
            # Its producer may be dead: all of it must have an end.
            keys = self.bench.redis.scan_iter(f"*{self.bench.batch_id}*", count=1000)
            assert all(self.bench.redis.ttl(key) >= 0 for key in keys)
            return
        assert (record.reason.code if record.reason else None) == model.reason
        counts = Counter(str(one.status) for one in model.outcomes.values())
        assert record.request_counts.model_dump() == {
            "total": len(model.inputs),
            **{name: counts[name] for name in ("succeeded", "failed", "cancelled", "expired")},
        }
        assert (record.usage.input_tokens if record.usage else 0) == model.calls
        for item in self.bench.items():
            self._check_item(item)
        self._check_statistics()
        self._check_keys()
        self._check_that_no_outcome_has_changed()

    def _check_item(self, item: Item) -> None:
        model = self.bench.model
        ended, run = model.outcomes.get(item.index), model.runs.get(item.index)
        assert item.custom_id == model.custom_ids.get(item.index)
        if ended is None:
            runs = run is not None and run.token != "waits"
            assert item.status is (ItemStatus.RUNNING if runs else ItemStatus.QUEUED)
            assert item.attempts == (run.attempts if run else 0)
            strikes = item.attempts - model.ended_starts[item.index]
            assert strikes >= 0
            assert strikes <= model.max_attempts or model.is_twin(item.index)
        else:
            assert (item.status, item.output) == (ended.status, ended.output)
            assert item.attempts == ended.attempts
            assert (item.error.code if item.error else None) == ended.code
        earlier = self.bench.reader.history(self.bench.batch_id, item.index)
        assert [one.output for one in earlier] == [
            one.output for one in model.history.get(item.index, [])
        ]

    def _check_statistics(self) -> None:
        """They tell of the failures that stand, and of all attempts that were ever settled."""
        model = self.bench.model
        progress = self.bench.reader.progress(self.bench.batch_id)
        failed = {i: str(one.code) for i, one in model.outcomes.items() if one.code}
        assert {group.code: group.count for group in progress.failures} == Counter(failed.values())
        for group in progress.failures:
            assert all(failed[index] == group.code for index in group.first)
        every = [
            *model.outcomes.values(),
            *(one for past in model.history.values() for one in past),
        ]
        ended = Counter(one.status for one in every)
        slots = progress.throughput
        assert sum(slot.succeeded for slot in slots) == ended[ItemStatus.SUCCEEDED]
        assert sum(slot.failed for slot in slots) == ended[ItemStatus.FAILED]
        assert progress.retried == sum(map(len, model.history.values()))

    def _check_keys(self) -> None:
        model, keys = self.bench.model, self.bench.keys
        with self.bench.redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.meta, "again_items")
            pipe.smembers(keys.open)
            pipe.zrangebyscore(keys.leases, 2, "inf")
            pipe.xrange(keys.events)
            for key in (*keys.every(len(model.inputs)), *self.bench.store._named(self.bench.key)):
                pipe.ttl(key)
            again, open_, alive, events, *lives = pipe.execute()
        assert int(again or 0) == sum(items for _, items in model.again)
        assert set(map(int, open_)) == model.open
        assert set(map(int, alive)) == {i for i, run in model.runs.items() if run.lease == "alive"}
        told = [BatchStatus(fields["status"]) for _, fields in events if "status" in fields]
        assert sum(status.ended for status in told) == model.ends <= 1 + model.reopenings
        # -2: there is no such key; -1: it has no end.
        assert all(life == -2 or (life >= 0) == model.ended for life in lives), lives

    def _check_that_no_outcome_has_changed(self) -> None:
        """Check that an item's earlier outcomes stay; a retry puts another one behind them."""
        model = self.bench.model
        for item in self.bench.items():
            known = self.bench.reader.history(self.bench.batch_id, item.index)
            if item.status.ended:
                known.append(item.model_copy(update={"custom_id": None}))
            before = self.seen.get(item.index, [])
            assert known[: len(before)] == before
            assert len(known) <= 1 + model.reopenings
            self.seen[item.index] = known
        ends = Counter(map(int, self.bench.done()))
        assert ends == {index: len(known) for index, known in self.seen.items() if known}

    def check_the_end(self) -> None:
        """The batch has ended, each item in its place, and can be purged without a trace."""
        bench, model = self.bench, self.bench.model
        self.check()
        assert not bench.active()
        assert bench.deployment.leaks() == []
        if model.status is None:
            return
        assert model.ended
        bench.commit(blindly=True)
        self.check()
        assert model.complete
        assert not model.runs
        batch = bench.deployment.client.retrieve(bench.batch_id)
        total = range(len(model.inputs))
        assert [item.index for item in batch.results()] == list(total)
        assert sorted(item.index for item in batch.as_completed()) == list(total)
        bench.purge()
        assert bench.deployment.keys_of(batch) == []
        assert bench.deployment.leaks() == []
