"""Outputs of earlier batches for items whose batch takes them."""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from chains import RegisteredChain
from chains.kept import digest
from ledger.cache import OutputCache
from ledger.errors import LedgerUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")


class CachedOutputs:
    """Asks the cache beside the loop. Whatever becomes of it, the item does not fail of it."""

    def __init__(self, cache: OutputCache, threads: Executor) -> None:
        self._cache = cache
        self._threads = threads

    async def get(self, name: str) -> str | None:
        """The output of this name, as JSON; None if there is none, or nobody knows."""
        return await self._asked(lambda: self._cache.get(name))

    async def put(self, name: str, output: str) -> None:
        """Keep the output for later batches."""
        await self._asked(lambda: self._cache.put(name, output))

    async def _asked(self, call: Callable[[], T]) -> T | None:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except LedgerUnavailable as error:
            logger.warning("cache not asked: %s", error)
            return None


def name_of(chain: RegisteredChain, text: str) -> str | None:
    """What names the output of this input: chain, version, what its steps are set to, and the input
    as JSON. None if the steps are set to what is no JSON: such a chain has no cache."""
    return digest(chain.name, chain.version, chain.chain.fingerprint(), json.loads(text))
