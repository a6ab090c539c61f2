"""Notices: what the end of a batch owes to others, until it is done.

`commit.lua` notes it in the step that ends the batch. What is due, how often it was tried and when
it is next is here and not in a process, so that it survives all of them.
"""

import json
from typing import Final, NamedTuple

from batchord.ledger.models import BatchRecord
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.mappers import record_of

#: The second word of the member that stands for the callback; those of webhooks have a number.
ON_COMPLETE: Final = "on_complete"


class OutboxEntry(NamedTuple):
    """One try of telling that a batch has ended."""

    member: str
    #: The batch as it was when it ended.
    record: BatchRecord
    #: Its how manieth end it was: the failed items of a batch can be run again.
    end: int
    #: 1 is the first; 0: they are all spent, and it is forgotten.
    tries: int
    #: The URL that the batch was submitted with; None: the deployment's.
    url: str | None


def owed(*, callback: str | None, webhook: str | None) -> dict[str, str]:
    """Return what a batch shall do at its end, as `BatchStore.open` takes it."""
    both = {ON_COMPLETE: callback, "webhook": webhook}
    return {name: value for name, value in both.items() if value is not None}


class Outbox:
    """What ended batches still owe."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._index = store.keys.notices

    def due(self, *, limit: int) -> list[str]:
        """Return members of the index that are due, the oldest first."""
        now = int(1000 * self._store.now())
        with self._store.talking():
            found = self._store.redis.zrangebyscore(self._index, 0, now, start=0, num=limit)
        return [str(each) for each in found]

    def callback(self, batch_id: str) -> str | None:
        """Return the signature that is not published yet; None if there is none."""
        with self._store.talking():
            found = self._store.redis.hget(self._store.keys.batch(batch_id).notices, ON_COMPLETE)
        return None if found is None else str(found)

    def callback_keys(self, batch_id: str) -> list[str]:
        """Return the two keys and the member that `publish_once` needs beside the message."""
        keys = self._store.keys.batch(batch_id)
        return [keys.notices, self._index, f"{batch_id} {ON_COMPLETE}"]

    def forget(self, member: str) -> None:
        """Take out what cannot be done, or is."""
        batch_id, what = member.split(" ", 1)
        with self._store.talking(), self._store.redis.pipeline() as pipe:
            pipe.zrem(self._index, member)
            pipe.hdel(self._store.keys.batch(batch_id).notices, what, f"{what}.tries")
            pipe.execute()

    def leave(self, member: str, seconds: float) -> None:
        """Have a member of the index, which cannot be done now, be due again in so many seconds."""
        due = int(1000 * (self._store.now() + seconds))
        with self._store.talking():
            self._store.redis.zadd(self._index, {member: due}, xx=True)

    def take(self, member: str, *, hold: float, tries: int) -> OutboxEntry | None:
        """Take a due notice for one try, which counts from now on; None if there is none to do.

        Nobody else takes it for `hold` seconds. After so many `tries` it is gone; whoever finds
        that out, as the last sender has died, is told once.
        """
        batch_id, end = member.split(" ", 1)
        names = [self._store.keys.batch(batch_id).notices, self._index]
        taken = self._store.run("notice_take", names, member, end, int(hold * 1000), tries)
        if not taken:
            return None
        nth, meta, url = taken
        flat = json.loads(meta)
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        record = record_of(batch_id, fields, running=0, put_off=0)
        return OutboxEntry(member, record, int(end), int(nth), url or None)

    def done(self, notice: OutboxEntry) -> None:
        """Remove an entry that was delivered, or that is given up."""
        self._end(notice, -1)

    def put_off(self, notice: OutboxEntry, seconds: float) -> None:
        """Record a failed try; the next is due in `seconds`."""
        self._end(notice, int(seconds * 1000))

    def _end(self, notice: OutboxEntry, wait_ms: int) -> None:
        names = [self._store.keys.batch(notice.record.id).notices, self._index]
        self._store.run("notice_end", names, notice.member, notice.end, notice.tries, wait_ms)
