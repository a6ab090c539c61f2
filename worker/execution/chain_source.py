"""The chain of a batch: registered in this process, or recorded with the batch as data."""

import asyncio
from collections import OrderedDict
from concurrent.futures import Executor
from threading import Lock
from typing import Final

from batchord.chains import ChainNotFound, RegisteredChain, get_chain, registered
from batchord.chains.specs.chain_spec import is_spec, registered_spec
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore

#: Chains built from data that a process keeps, the latest used ones.
_MOST_KEPT: Final = 128


class ChainSource:
    """Finds chains by batch; it reads what travels as data once a process, and keeps what it built.

    Safe to use from several threads; it connects to nothing before the first chain that is data.
    """

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._lock = Lock()
        self._built: OrderedDict[str, RegisteredChain] = OrderedDict()

    def get(self, name: str, batch_id: str) -> RegisteredChain:
        """Return the chain of this name, which the batch has; may block for Redis.

        Raises:
            ChainNotFound: it is neither registered nor recorded.
            BadSpec: what is recorded is not the chain of this name.
            LedgerUnavailable: it is not known, and cannot be read now.
        """
        known = self._known(name)
        return self._read(name, batch_id) if known is None else known

    async def aget(self, name: str, batch_id: str, threads: Executor) -> RegisteredChain:
        """As `get`; what must be read is read in one of the threads."""
        known = self._known(name)
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, self._read, name, batch_id)

    def _known(self, name: str) -> RegisteredChain | None:
        if not is_spec(name):
            return get_chain(name)
        with self._lock:
            found = self._built.get(name)
            if found is not None:
                self._built.move_to_end(name)
        return found

    def _read(self, name: str, batch_id: str) -> RegisteredChain:
        text = BatchReader(self._store).spec(batch_id)
        if text is None:
            raise ChainNotFound(name, registered())
        built = registered_spec(name, text)
        with self._lock:
            # One for all items: they share the requests of an embedding.
            chain = self._built.setdefault(name, built)
            while len(self._built) > _MOST_KEPT:
                self._built.popitem(last=False)
        return chain
