"""A transition whose answer was lost is asked for again: same answer, same ledger, no key for ever.

Three lives of a batch go through its scripts. Each call of a script is made twice at once, and all
of them once more after the batch has ended, and after it was purged.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest

from batchord.chains import Usage
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.core.message_ids import new_batch_id
from batchord.ledger.core.scripts import Call, is_library, script_files, script_source
from batchord.ledger.core.sharding import Cut
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.lifecycle.completion_callback import publish_callback
from batchord.ledger.models import ItemStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import Checkpoint, ClaimRequest, Deferral, Settlement
from batchord.ledger.storage.outbox import Outbox, owed
from batchord.ledger.storage.provider_parts import ProviderParts
from tests.support.harness import Deployment

#: What a script answers when it is asked again, where that is not the same: it tells whether the
#: caller has done it, and nobody does it twice. Each caller bears to be told so.
AGAIN: Final[dict[str, Any]] = {
    "next_shard": [],  # its publisher has a lease
    "shard_published": 0,
    "free_key": 0,
    "release": 0,
    "abandon": 0,
    "put_off": 0,
    "come_due": [],
    "lapsed": [],
    "retry_shard": 0,  # `retry_moved` counts
    "expire": 0,
    "commit": -1,
    "purge": -1,
    "publish_once": 0,
    "outbox_take": [],  # a try that counts; the next comes after its hold
    "outbox_end": 0,
}

#: What is asked again here too, and changes something: one wake-up call more.
MORE: Final = {"note"}

#: Scripts that write nothing of a batch.
OTHERS: Final = {
    *("limit", "cool_down", "take", "overtaken", "publish_once", "heartbeat", "breaker"),
    *("api_beat", "api_cancel", "api_conclude", "api_create", "api_take"),
}


class TwiceStore(BatchStore):
    """The real store; each call of a script is made twice, and kept."""

    def __init__(self, settings: Settings, look: Callable[[], str]) -> None:
        super().__init__(settings)
        self._look = look
        self.calls: list[Call] = []
        self.problems: list[str] = []

    def run(self, name: str, keys: Sequence[str], *args: str | int | float | bytes) -> Any:
        answer = super().run(name, keys, *args)
        self._again(Call(name, keys, args), answer)
        return answer

    def run_all(self, calls: Sequence[Call]) -> list[Any]:
        if len(calls) == 1:
            return super().run_all(calls)
        return [self.run(call.name, call.keys, *call.args) for call in calls]

    def _again(self, call: Call, answer: Any) -> None:
        self.calls.append(call)
        before = self._look()
        again = super().run(call.name, call.keys, *call.args)
        if again not in (answer, AGAIN.get(call.name, answer)):
            self.problems.append(f"{call.name}: {answer!r}, again {again!r}")
        if self._look() != before and call.name not in MORE:
            self.problems.append(f"{call.name}: changes something again\n{before}\n{self._look()}")

    def late(self) -> None:
        """Make all calls so far once more, but do not open a batch that is gone."""
        for call in self.calls:
            if call.name != "open":
                super().run(call.name, call.keys, *call.args)


def look(redis: Any) -> str:
    """The ledger as text, without times."""
    found = []
    for key in sorted(redis.scan_iter("batchord:*", count=1000)):
        match redis.type(key):
            case "hash":
                value: Any = sorted(redis.hgetall(key).items())
            case "zset":
                value = redis.zrange(key, 0, -1)
            case "set":
                value = sorted(redis.smembers(key))
            case "list":
                value = redis.lrange(key, 0, -1)
            case "stream":
                value = [fields for _, fields in redis.xrange(key)]
            case _:
                value = redis.get(key)
        found.append(f"{key} {redis.ttl(key) == -1} {value!r}")
    return re.sub(r"\b\d{13}\b|\b\d{10}\.\d{3}\b", "TIME", "\n".join(found))


CUT = Cut(items_per_task=1, items_per_slot=1, shard_tasks=2, shard_items=2, window=9, priority=5)


class Life:
    """One batch of five items, and what may befall it."""

    def __init__(self, deployment: Deployment, store: BatchStore) -> None:
        self.store, self.redis = store, deployment.redis
        self.app = create_app(deployment.settings)
        self.item_leases, self.control = ItemLeases(store), BatchControl(self.app, store)
        self.id, self.key = new_batch_id(), "key"
        self._tokens = 0
        self._attempts: dict[str, int] = {}

    def submit(self, **fields: str) -> None:
        store = self.store
        callback = '{"task":"report","args":[],"kwargs":{},"options":{"queue":"batchord"}}'
        assert store.take_key(self.key, self.id) == self.id
        outbox = owed(callback=callback, webhook="https://hooks.example.com/")
        fields |= {"chain": "echo", "idempotency_key": self.key}
        assert store.open(self.id, fields, key=self.key, outbox=outbox)
        assert store.append(self.id, 0, ["1", "2", "3"], ["a", "b", "c"]) == 3
        assert store.renew(self.id, total=3, key=self.key)
        assert store.append(self.id, 3, ["4", "5"], ["d", "e"]) == 5
        sealed = {"total": 5, "cut": CUT, "key": self.key, "with_ids": True, "entries": 2}
        assert store.seal(self.id, window=3600, **sealed) == 5  # type: ignore[arg-type]

    def publish(self, shards: int) -> None:
        for _ in range(shards):
            shard = self.store.next_shard(self.id)
            assert shard is not None
            self.store.shard_published(self.id, shard.number)

    def claim(self, *indexes: int) -> list[ClaimRequest]:
        claim_requests = []
        for index in indexes:
            self._tokens += 1
            claim_requests.append(
                ClaimRequest(batch_id=self.id, index=index, token=f"t{self._tokens}", alone=True)
            )
        _, claims = self.item_leases.swap([], claim_requests)
        assert {claim.verdict for claim in claims} == {"run"}
        for claim_request, claim in zip(claim_requests, claims, strict=True):
            self._attempts[claim_request.token] = claim.attempt
        return claim_requests

    def settle(self, claim_request: ClaimRequest, *, fails: bool = False) -> None:
        status = ItemStatus.FAILED if fails else ItemStatus.SUCCEEDED
        error = ',"error":{"code":"bug","message":"","retryable":true}' if fails else ""
        told = Settlement(
            batch_id=self.id,
            index=claim_request.index,
            token=claim_request.token,
            shard=claim_request.index // 2,
            attempt=self._attempts[claim_request.token],
            status=status,
            outcome=f'{{"status":"{status}"{error}}}',
            code="bug" if fails else "",
            output="null" if fails else '"output"',
            usage={"requests": 1, "input_tokens": 1},
            busy=0.001,
        )
        self.item_leases.swap([told], [])

    def gather(self, *shards: int) -> None:
        for shard in shards:
            assert self.store.gather(self.id, shard) == 0

    def commit(self) -> None:
        assert self.store.commit(self.id, total=5, key=self.key)

    def notify(self) -> None:
        outbox = Outbox(self.store)
        publish_callback(self.app, self.store, self.id)
        for member in outbox.due(limit=9):
            entry = outbox.take(member, hold=60.0, tries=3)
            if entry is not None:
                outbox.put_off(entry, 0.0)

    def lasting(self) -> list[str]:
        """Its keys that have no end, of the ledger's and the idempotency key."""
        names = self.redis.keys("batchord:*{*") + self.redis.keys("batchord:key:*")
        return [name for name in names if self.redis.ttl(name) == -1]


def completed(life: Life) -> None:
    """Every step that a batch may take, a retry, and the end."""
    life.submit(dedupe="1")
    life.publish(3)
    life.control.pause(life.id)
    life.control.resume(life.id)
    first, second, third = life.claim(0, 1, 2)
    life.item_leases.beat(life.id, {first.index: first.token})
    life.item_leases.keep(
        [Checkpoint(claim_request=first, steps='key "x"\n', usage=Usage(requests=1))]
    )
    life.item_leases.release([second])
    life.item_leases.abandon(life.claim(3))
    life.item_leases.put_off([Deferral(claim_request=third, seconds=0.0)])
    assert life.store.come_due(life.id, limit=9) == [2]
    life.store.note(life.id, "in_progress")
    life.settle(first, fails=True)
    for claim_request in life.claim(1, 2, 3, 4):
        life.settle(claim_request)
    life.gather(0, 1, 2)
    life.commit()
    life.notify()
    assert life.control.retry_failed(life.id) == 1
    life.redis.hdel(life.store.keys.batch(life.id).meta, "publishing_until")
    [claim_request] = life.claim(0)
    life.settle(claim_request)
    life.gather(0)
    life.commit()
    life.store.free_key("another", life.id)


def cancelled(life: Life) -> None:
    """Cancelled amid its work, with one item whose worker has died."""
    life.submit()
    life.publish(2)
    life.claim(0)
    life.redis.zadd(life.store.keys.batch(life.id).leases, {"0": 1})
    assert life.store.lapsed(life.id, limit=9) == [0]
    life.control.cancel(life.id)
    life.notify()


def expired(life: Life) -> None:
    """In provider mode, with a part that is out, until its window is over."""
    life.submit(mode="provider")
    parts = ProviderParts(life.store)
    assert parts.hold(life.id, "us", 3600)
    assert parts.extend(life.id, 0, 0, 5)
    assert parts.note(life.id, 0, "file", "file-1") == "file-1"
    parts.progress(life.id, 2)
    assert not parts.deal(life.id, 0)
    parts.note(life.id, 0, "closed", 1)
    life.redis.hset(life.store.keys.batch(life.id).meta, "expires_at", 1)
    life.store.transition("expire", life.id)
    life.control.wind_up(life.id)
    # By a poller that stood still meanwhile.
    assert parts.deal(life.id, 1)


def aborted(life: Life) -> None:
    """Taken back by its producer."""
    store = life.store
    assert store.take_key(life.key, life.id) == life.id
    assert store.open(life.id, {"chain": "echo"}, key=life.key)
    assert store.append(life.id, 0, ["1"], None) == 1
    assert store.abort(life.id)
    store.free_key(life.key, life.id)


LIVES = [completed, cancelled, expired, aborted]


@pytest.fixture
def store(deployment: Deployment) -> TwiceStore:
    return TwiceStore(deployment.settings, lambda: look(deployment.redis))


@pytest.mark.parametrize("live", LIVES, ids=lambda live: live.__name__)
def test_a_repeated_call_is_harmless_at_once_and_late(
    deployment: Deployment, store: TwiceStore, live: Callable[[Life], None]
) -> None:
    life = Life(deployment, store)
    live(life)
    assert store.problems == []
    meta = store.keys.batch(life.id).meta
    if live is not aborted:
        ended = _lasting_part(look(deployment.redis))
        store.late()
        assert life.lasting() == []
        assert deployment.client.retrieve(life.id).record().status.ended
        assert _lasting_part(look(deployment.redis)) == ended
        assert deployment.client.purge(life.id)
        store.purge(life.id, total=5, key=life.key)
    store.late()
    assert life.lasting() == []
    assert not deployment.redis.exists(meta)
    store.close()


def _lasting_part(text: str) -> str:
    """Not what counts tries of the outbox, and not the events: a retry that comes late is one more,
    which opens the batch and ends it again."""
    lines = re.sub(r"\('retry_moved', '\d+'\)", "", text).splitlines()
    return "\n".join(line for line in lines if not re.search(":(outbox|outbox-due|events) ", line))


def test_each_script_is_in_a_life(deployment: Deployment) -> None:
    known = {name for name in script_files() if not is_library(script_source(name))}
    called = set()
    for live in LIVES:
        deployment.redis.flushdb()
        store = TwiceStore(deployment.settings, lambda: "")
        live(Life(deployment, store))
        called |= {call.name for call in store.calls}
        store.close()
    assert known - called == OTHERS | {"purge"}
