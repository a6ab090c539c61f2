"""Day budgets: the cost of all batches of a tenant of `batchord serve` in a day (UTC).

`settle.lua` counts what they cost, and pauses each of them once the day's budget is used
(`lua/lib/day_budget.lua`), so that it holds for batches that run side by side.
"""

from typing import Any, Final

from batchord.ledger.storage.batch_store import BatchStore

DAY: Final = 24 * 3600
#: In billionths of a dollar.
_NANOS: Final = 10**9
#: Seconds for which a budget is kept beyond its last use: a batch may be paused for long.
_TTL: Final = 400 * DAY


class DayBudgets:
    """The day's budgets of all tenants; it borrows the store's connection."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        # The replies of redis-py are typed for sync and async clients at once; this one is sync.
        self._redis: Any = store.redis

    def set(self, tenant: str, usd: float | None) -> None:
        """Set what a tenant's batches may cost a day, those that run by now included; None: any."""
        key = self._key(tenant)
        with self._store.talking(), self._redis.pipeline() as pipe:
            if usd is None:
                pipe.hdel(key, "most")
            else:
                pipe.hset(key, "most", round(usd * _NANOS))
                pipe.expire(key, _TTL)
            pipe.execute()

    def left(self, tenant: str) -> float | None:
        """Return the dollars that today has left, 0 or less if it is used; None: no bound."""
        return self._left(self._known(tenant))

    def may_go_on(self, tenant: str) -> bool:
        """Whether batches of the tenant were paused for the day's budget, and now it has room."""
        known = self._known(tenant)
        left = self._left(known)
        return known["waits"] is not None and (left is None or left > 0)

    def none_waits(self, tenant: str) -> None:
        """Note that the batches that were paused are about to be resumed."""
        with self._store.talking():
            self._redis.hdel(self._key(tenant), "waits")

    def _left(self, known: dict[str, str | None]) -> float | None:
        if known["most"] is None:
            return None
        today = known["day"] == str(int(self._store.now() // DAY))
        spent = int(known["spent"] or 0) if today else 0
        return (int(known["most"]) - spent) / _NANOS

    def _known(self, tenant: str) -> dict[str, str | None]:
        names = ("day", "spent", "most", "waits")
        with self._store.talking():
            found = self._redis.hmget(self._key(tenant), names)
        return dict(zip(names, found, strict=True))

    def _key(self, tenant: str) -> str:
        return self._store.keys.day_budget(tenant)
