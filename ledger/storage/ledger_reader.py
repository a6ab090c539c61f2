"""The base of all readers of the ledger."""

from typing import Any

from batchord.ledger.storage.batch_store import BatchStore


class LedgerReader:
    """Borrows the store's connection."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._keys = store.keys
        # The replies of redis-py are typed for sync and async clients at once; this one is sync.
        self._redis: Any = store.redis
