"""Parts: what of a batch is at its provider, one file and one of the provider's batches each.

Everything is noted before it is done, and what came of it after: who finds the first note without
the second knows that it may have happened.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from batchord.ledger.core.sharding import Shard
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.keys import Keys

#: What is noted of a part, besides its items: who is about to upload it, the provider's file, who
#: is about to create its batch, the provider's batch, until when (ms) not to try again, how often
#: it was put off, how often a batch was looked for that may have been created, that another was
#: created or found after that, that its file was uploaded again, how often a call for it has
#: failed, and that it is over.
Field = Literal[
    "uploading",
    "file",
    "creating",
    "batch",
    "not_before",
    "tries",
    "looks",
    "again",
    "uploaded_again",
    "setbacks",
    "closed",
]


@dataclass(frozen=True, kw_only=True)
class ProviderPart:
    """A run of items that are sent to the provider together."""

    number: int
    start: int
    stop: int
    #: Its shards: from `first_shard` on, before `next_shard`.
    first_shard: int
    next_shard: int
    #: Seconds since the epoch, by the server's clock.
    begun: float
    file_id: str | None = None
    batch_id: str | None = None
    #: Someone was about to upload its file.
    uploading: bool = False
    #: Someone was about to create its batch.
    creating: bool = False
    #: How often the provider has put it off, and until when it is not tried again.
    tries: int = 0
    not_before: float = 0.0
    #: How often a batch was looked for that may have been created.
    looks: int = 0
    #: The provider may have several batches of it.
    again: bool = False
    #: The provider may have several files of it.
    uploaded_again: bool = False
    #: How often a call for it has failed.
    setbacks: int = 0
    closed: bool = False


class ProviderParts:
    """The parts of batches in the ledger; it borrows the store's connection."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._keys: Keys = store.keys
        # The replies of redis-py are typed for sync and async clients at once; this one is sync.
        self._redis: Any = store.redis

    def all(self, batch_id: str) -> list[ProviderPart]:
        """Return the parts of the batch in order."""
        with self._store.talking():
            found = self._redis.hgetall(self._keys.batch(batch_id).parts)
        return [_part_of(int(name), found) for name in sorted(filter(str.isdigit, found), key=int)]

    def extend(self, batch_id: str, part: int, start: int, stop: int) -> bool:
        """Let the part reach from `start` to `stop`, and cut its shards; False: not any more."""
        given = {"part": part, "start": start, "stop": stop}
        return bool(self._store.transition("part_extend", batch_id, **given))

    def note(self, batch_id: str, part: int, field: Field, value: str | int) -> str:
        """Note it unless something was noted before; return what stands there. '': batch ended."""
        name = f"{part}.{field}"
        return str(self._store.transition("part_note", batch_id, field=name, value=value))

    def set(self, batch_id: str, part: int, field: Field, value: str | int) -> None:
        """Note it in place of what was noted before, unless the batch has ended."""
        self.forget(batch_id, part, field)
        self.note(batch_id, part, field, value)

    def forget(self, batch_id: str, part: int, *fields: Field) -> None:
        """Forget what was noted: it is to be done afresh."""
        with self._store.talking():
            names = [f"{part}.{field}" for field in fields]
            self._redis.hdel(self._keys.batch(batch_id).parts, *names)

    def deal(self, batch_id: str, shard: int) -> bool:
        """Return whether the shard is complete; what is missing of it is queued to run live."""
        return bool(self._store.transition("part_deal", batch_id, shard=shard))

    def progress(self, batch_id: str, done: int) -> None:
        """Record how many requests the provider has answered whose answers are not here yet."""
        self._store.transition("part_progress", batch_id, done=done)

    def shards(self, batch_id: str, part: ProviderPart) -> list[Shard]:
        """Return the shards of a part in order."""
        numbers = range(part.first_shard, part.next_shard)
        with self._store.talking():
            cuts = self._redis.hmget(self._keys.batch(batch_id).shards, list(numbers))
        found = []
        for number, cut in zip(numbers, cuts, strict=True):
            start, stop, per_task = map(int, cut.split())
            found.append(Shard(number, start, stop, per_task))
        return found

    def out(self, batch_id: str) -> Iterator[ProviderPart]:
        """Yield the parts that are not over."""
        return (part for part in self.all(batch_id) if not part.closed)

    def hold(self, batch_id: str, token: str, seconds: float) -> bool:
        """Be the only one who talks with the provider about the batch, for so long; 0: no more."""
        ms = int(seconds * 1000)
        return bool(self._store.transition("hold", batch_id, token=token, lease_ms=ms))

    def look_is_due(self, batch_id: str, seconds: float) -> bool:
        """Return whether no worker has looked at the provider's batches for `seconds`."""
        name = self._keys.batch(batch_id).looked
        with self._store.talking():
            return bool(self._redis.set(name, 1, nx=True, px=max(1, int(seconds * 1000))))


def _part_of(number: int, found: dict[str, str]) -> ProviderPart:
    start, stop, first, following, begun = map(int, found[str(number)].split())
    return ProviderPart(
        number=number,
        start=start,
        stop=stop,
        first_shard=first,
        next_shard=following,
        begun=begun / 1000,
        file_id=found.get(f"{number}.file"),
        batch_id=found.get(f"{number}.batch"),
        uploading=f"{number}.uploading" in found,
        creating=f"{number}.creating" in found,
        tries=int(found.get(f"{number}.tries", 0)),
        not_before=int(found.get(f"{number}.not_before", 0)) / 1000,
        looks=int(found.get(f"{number}.looks", 0)),
        again=f"{number}.again" in found,
        uploaded_again=f"{number}.uploaded_again" in found,
        setbacks=int(found.get(f"{number}.setbacks", 0)),
        closed=f"{number}.closed" in found,
    )
