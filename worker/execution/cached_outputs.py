"""Outputs of earlier batches for items whose batch takes them."""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from batchord.chains import RegisteredChain
from batchord.chains.runtime.checkpoints import digest
from batchord.ledger.errors import LedgerUnavailable
from batchord.ledger.storage.item_transitions import Claim
from batchord.ledger.storage.output_cache import OutputCache

logger = logging.getLogger(__name__)

T = TypeVar("T")


class CachedOutputs:
    """Asks the cache beside the loop. Whatever becomes of it, the item does not fail of it."""

    def __init__(self, cache: OutputCache, threads: Executor) -> None:
        self._cache = cache
        self._threads = threads

    async def get(self, name: str) -> str | None:
        """Return the cached output of this name, as JSON; None if it is missing or unreachable."""
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


def name_of(chain: RegisteredChain, claim: Claim) -> str | None:
    """Name the output by chain, version, step settings, the input as JSON, and the config.

    Tags and run name are left out. None, and no cache, if the settings have no JSON form.

    """
    parts = [chain.name, chain.version, chain.chain.fingerprint(), json.loads(claim.input)]
    config = json.loads(claim.config or "{}")
    told = {name: config[name] for name in config if name not in ("tags", "run_name")}
    if told or claim.types:
        parts += [told, dict(claim.types)]
    return digest(*parts)
