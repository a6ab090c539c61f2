"""Reading what workers have announced, and what chains are known to use."""

from batchord.ledger.models import ChainRecord, ChainUse
from batchord.ledger.storage.ledger_reader import LedgerReader


class ChainReader(LedgerReader):
    """Answers about the chains and tasks that workers have announced."""

    def chain(self, name: str) -> ChainRecord | None:
        """Return a chain as the workers announced it, or None."""
        with self._store.talking():
            found = self._redis.hget(self._keys.chains, name)
        return None if found is None else ChainRecord.model_validate_json(found)

    def chains(self) -> dict[str, ChainRecord]:
        """Return every chain that workers announced, by name."""
        with self._store.talking():
            found = self._redis.hgetall(self._keys.chains)
        return {name: ChainRecord.model_validate_json(found[name]) for name in sorted(found)}

    def has_task(self, name: str) -> bool:
        """Whether a worker has announced a user's Celery task of this name."""
        with self._store.talking():
            return bool(self._redis.sismember(self._keys.tasks, name))

    def used(self, chain: str) -> ChainUse | None:
        """Return what the chain's completed batches have used together; None: nothing is known."""
        with self._store.talking():
            found = self._redis.hget(self._keys.used, chain)
        if found is None:
            return None
        names = ("batches", "items", "input_tokens", "output_tokens", "priced_items", "cost_nanos")
        return ChainUse(**dict(zip(names, map(int, found.split()), strict=True)))
