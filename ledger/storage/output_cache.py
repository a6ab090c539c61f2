"""Outputs that later batches may use, in Redis, until their time is over."""

from batchord.ledger.core.compression import pack, unpack
from batchord.ledger.storage.batch_store import BatchStore


class OutputCache:
    """Outputs as JSON by a digest of what has made them; it borrows the store's connection."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def get(self, digest: str) -> str | None:
        """Return the output, or None.

        Raises:
            LedgerUnavailable: it is unknown.
        """
        with self._store.talking():
            found = self._store.redis.get(self._store.keys.cached(digest))
        return None if found is None else unpack(str(found))

    def put(self, digest: str, output: str) -> None:
        """Keep the output for `Settings.cache_ttl` seconds from now.

        Raises:
            LedgerUnavailable: it is not kept, or perhaps it is.
        """
        name, ttl = self._store.keys.cached(digest), self._store.settings.cache_ttl
        with self._store.talking():
            self._store.redis.set(name, pack(output), ex=ttl)
