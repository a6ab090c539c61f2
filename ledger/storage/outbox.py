"""The transactional outbox: callbacks and webhooks of ended batches, until they are delivered.

`commit.lua` writes an entry in the step that ends the batch. Due times and tries are in Redis and
not in a process, so that they survive each process.
"""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

from batchord.ledger.models import BatchRecord
from batchord.ledger.needs import FORMATS, format_of
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.mappers import record_of

#: The second word of the member that stands for the callback; those of webhooks have a number.
ON_COMPLETE: Final = "on_complete"

#: Due members that are looked at for each that is returned: others' may be among them.
_LOOKED_AT: Final = 10


class OutboxEntry(NamedTuple):
    """One try of delivering a batch's webhook."""

    member: str
    #: The batch as it was when it ended.
    record: BatchRecord
    #: 1-based count of how often this batch has ended; `retry_failed` reopens it.
    end: int
    #: 1 is the first try; 0: all tries are spent, and the entry is removed.
    tries: int
    #: The URL that the batch was submitted with; None: the deployment's.
    url: str | None
    #: The environment variable, of the workers, with the secret that signs it; None: the
    #: deployment's.
    secret_env: str | None


def owed(
    *, callback: str | None = None, webhook: str | None = None, secret_env: str | None = None
) -> dict[str, str]:
    """Return the entries that a batch's end shall make, as `BatchStore.open` takes them."""
    all_ = {ON_COMPLETE: callback, "webhook": webhook, "webhook.secret": secret_env}
    return {name: value for name, value in all_.items() if value is not None}


def _is_ours(format_: str | None) -> bool:
    try:
        return format_of(format_) in FORMATS
    except ValueError:
        return True  # damaged: its entry is put off


class Outbox:
    """The undelivered callbacks and webhooks of ended batches."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._index = store.keys.outbox_due

    def due(self, *, limit: int) -> list[str]:
        """Return members of the index that are due, the oldest first.

        Those of batches that another version has written are left to that.
        """
        now = int(1000 * self._store.now())
        with self._store.talking():
            looked_at = _LOOKED_AT * limit
            found = self._store.redis.zrangebyscore(self._index, 0, now, start=0, num=looked_at)
        members = [str(each) for each in found]
        return [each for each, ours in zip(members, self._ours(members), strict=True) if ours][
            :limit
        ]

    def _ours(self, members: Sequence[str]) -> list[bool]:
        """Tell of each member whether this version serves its batch; what is damaged counts."""
        if not members:
            return []
        with self._store.redis.pipeline(transaction=False) as pipe:
            for member in members:
                pipe.hget(self._store.keys.batch(member.split(" ", 1)[0]).meta, "format")
            replies = self._store.replies(pipe)
        return [isinstance(each, Exception) or _is_ours(each) for each in replies]

    def callback(self, batch_id: str) -> str | None:
        """Return the callback's signature, or None once it is published."""
        with self._store.talking():
            found = self._store.redis.hget(self._store.keys.batch(batch_id).outbox, ON_COMPLETE)
        return None if found is None else str(found)

    def callback_keys(self, batch_id: str) -> tuple[dict[str, str], str]:
        """Return the keys and the member that `publish_once` needs beside the message."""
        outbox = self._store.keys.batch(batch_id).outbox
        return {"outbox": outbox, "outbox_due": self._index}, f"{batch_id} {ON_COMPLETE}"

    def forget(self, member: str) -> None:
        """Remove an entry that is delivered, or cannot be."""
        batch_id, what = member.split(" ", 1)
        with self._store.talking(), self._store.redis.pipeline() as pipe:
            pipe.zrem(self._index, member)
            pipe.hdel(self._store.keys.batch(batch_id).outbox, what, f"{what}.tries")
            pipe.execute()

    def leave(self, member: str, seconds: float) -> None:
        """Make a member of the index due again in `seconds`, as it cannot be delivered now."""
        due = int(1000 * (self._store.now() + seconds))
        with self._store.talking():
            self._store.redis.zadd(self._index, {member: due}, xx=True)

    def take(self, member: str, *, hold: float, tries: int) -> OutboxEntry | None:
        """Take a due webhook for one try, which counts from now on; None if it is not due.

        For `hold` seconds no other process takes it. After `tries` tries it is gone; if the last
        sender has died, the next call returns it once more, with `tries` 0.
        """
        batch_id, end = member.split(" ", 1)
        taken = self._store.transition(
            "outbox_take", batch_id, member=member, nth=end, hold_ms=int(hold * 1000), tries=tries
        )
        if not taken:
            return None
        nth, meta, url, secret_env = taken
        flat = json.loads(meta)
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        record = record_of(batch_id, fields, running=0, put_off=0)
        return OutboxEntry(member, record, int(end), int(nth), url or None, secret_env or None)

    def done(self, entry: OutboxEntry) -> None:
        """Remove an entry that was delivered, or that is given up."""
        self._end(entry, -1)

    def put_off(self, entry: OutboxEntry, seconds: float) -> None:
        """Record a failed try; the next is due in `seconds`."""
        self._end(entry, int(seconds * 1000))

    def _end(self, entry: OutboxEntry, wait_ms: int) -> None:
        given = {"member": entry.member, "nth": entry.end, "try": entry.tries, "wait_ms": wait_ms}
        self._store.transition("outbox_end", entry.record.id, **given)
