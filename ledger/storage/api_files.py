"""The uploaded files of `batchord serve`: all that is known of them but their bytes.

The bytes have a date of their own in `bytes`, after which any server deletes them. It is there
before the first byte is written, so that a server that dies during an upload leaves none for good.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from batchord.ledger.storage.batch_store import BatchStore

#: Seconds after which an upload that has not ended is given up.
UPLOAD_GRACE: Final = 3600
#: Seconds until bytes that a batch still reads are looked at again.
_LOOK_AGAIN: Final = 600


@dataclass(frozen=True)
class ApiFile:
    """An uploaded file. Times are seconds since 1970, by the server's clock."""

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    #: Lines that are not empty.
    lines: int
    created_at: float
    expires_at: int


class ApiFiles:
    """The files of all tenants; it borrows the store's connection."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._keys = store.keys
        # The replies of redis-py are typed for sync and async clients at once; this one is sync.
        self._redis: Any = store.redis

    def reserve(self, file_id: str) -> None:
        """Note that bytes are about to be written under this id."""
        until = int(1000 * (self._store.now() + UPLOAD_GRACE))
        with self._store.talking():
            self._redis.zadd(self._keys.api("bytes"), {file_id: until})

    def add(
        self,
        file_id: str,
        *,
        tenant: str,
        filename: str,
        purpose: str,
        size: int,
        lines: int,
        ttl: int,
    ) -> ApiFile:
        """Record a file whose bytes are written; it lives `ttl` seconds."""
        now = self._store.now()
        file = ApiFile(file_id, tenant, filename, purpose, size, lines, now, int(now) + ttl)
        record, index = self._keys.api("file", file_id), self._keys.api("files", tenant)
        fields = {name: value for name, value in vars(file).items() if name != "id"}
        with self._store.talking(), self._redis.pipeline() as pipe:
            pipe.hset(record, mapping=fields)
            pipe.expireat(record, file.expires_at)
            pipe.zadd(index, {file_id: int(1000 * now)})
            pipe.expire(index, ttl, nx=True)
            pipe.expire(index, ttl, gt=True)
            pipe.zadd(self._keys.api("bytes"), {file_id: 1000 * file.expires_at})
            pipe.execute()
        return file

    def get(self, tenant: str, file_id: str) -> ApiFile | None:
        """Return a tenant's file; None: it has none of this id."""
        [file] = self.of([file_id])
        return file if file is not None and file.tenant == tenant else None

    def of(self, file_ids: Sequence[str]) -> list[ApiFile | None]:
        """Return these files, in one round trip; None: it is unknown, or has expired."""
        with self._store.redis.pipeline(transaction=False) as pipe:
            for file_id in file_ids:
                pipe.hgetall(self._keys.api("file", file_id))
            replies = self._store.replies(pipe)
        return [
            _file(file_id, fields) if fields and not isinstance(fields, Exception) else None
            for file_id, fields in zip(file_ids, replies, strict=True)
        ]

    def all(self, tenant: str) -> list[ApiFile]:
        """Return all files of a tenant, the oldest first."""
        index = self._keys.api("files", tenant)
        with self._store.talking():
            ids = [str(each) for each in self._redis.zrange(index, 0, -1)]
        found = self.of(ids)
        gone = [each for each, file in zip(ids, found, strict=True) if file is None]
        if gone:
            with self._store.talking():
                self._redis.zrem(index, *gone)
        return [file for file in found if file is not None]

    def delete(self, file: ApiFile) -> None:
        """Forget a file; its bytes may be deleted once no batch reads them."""
        with self._store.talking(), self._redis.pipeline() as pipe:
            pipe.delete(self._keys.api("file", file.id))
            pipe.zrem(self._keys.api("files", file.tenant), file.id)
            pipe.zadd(self._keys.api("bytes"), {file.id: 0})
            pipe.execute()

    # The bytes.

    def due(self, *, limit: int) -> list[str]:
        """Return files whose bytes may be deleted, if no batch reads them."""
        now = int(1000 * self._store.now())
        with self._store.talking():
            found = self._redis.zrangebyscore(
                self._keys.api("bytes"), "-inf", now, start=0, num=limit
            )
        return [str(each) for each in found]

    def deleted(self, file_id: str) -> None:
        """Record that the bytes are gone."""
        with self._store.talking(), self._redis.pipeline() as pipe:
            pipe.zrem(self._keys.api("bytes"), file_id)
            pipe.delete(self._keys.api("readers", file_id))
            pipe.execute()

    def put_off(self, file_id: str) -> None:
        """Look at the bytes again later, as a batch reads them."""
        due = int(1000 * (self._store.now() + _LOOK_AGAIN))
        with self._store.talking():
            self._redis.zadd(self._keys.api("bytes"), {file_id: due}, xx=True)

    def readers(self, file_id: str) -> list[str]:
        """Return the batches that were made of this file and may read its bytes."""
        with self._store.talking():
            return sorted(map(str, self._redis.smembers(self._keys.api("readers", file_id))))

    def read_no_more(self, file_id: str, batch_id: str) -> None:
        """Note that the batch does not need the bytes any more."""
        with self._store.talking():
            self._redis.srem(self._keys.api("readers", file_id), batch_id)


def _file(file_id: str, fields: dict[str, str]) -> ApiFile:
    return ApiFile(
        id=file_id,
        tenant=fields["tenant"],
        filename=fields["filename"],
        purpose=fields["purpose"],
        bytes=int(fields["bytes"]),
        lines=int(fields["lines"]),
        created_at=float(fields["created_at"]),
        expires_at=int(fields["expires_at"]),
    )
