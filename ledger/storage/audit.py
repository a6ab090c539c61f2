"""Audit lines: who paused, resumed, cancelled, retried or purged a batch, and when."""

import json
import secrets
from datetime import UTC, datetime
from typing import Any, Final

from batchord.ledger.core.actor import actor
from batchord.ledger.models import Frozen
from batchord.ledger.storage.batch_store import BatchStore

#: Lines that are kept of a batch, and of purges.
KEPT: Final = 100
PURGES_KEPT: Final = 1_000
#: Seconds that purges are told after the last of them.
PURGES_TOLD: Final = 30 * 24 * 3600


class AuditLine(Frozen):
    """One thing that someone has done."""

    #: When (UTC, the server's clock).
    at: datetime
    #: `pause`, `resume`, `cancel`, `retry` or `purge`.
    did: str
    #: "user@host" of a program or the command line, "flower:USER", "serve:TENANT".
    by: str
    batch_id: str


class Audit:
    """Notes and reads audit lines."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def note(self, batch_id: str, did: str, by: str | None = None) -> None:
        """Note what was done to a batch, if it is there; None: by the user of this process."""
        self._store.transition(
            "audit", batch_id, token=secrets.token_hex(8), did=did, by=by or actor(), kept=KEPT
        )

    def note_purge(self, batch_id: str, by: str | None = None) -> None:
        """Note that a batch was purged: nothing else of it is left."""
        at_ms = int(1000 * self._store.now())
        line = json.dumps({"batch_id": batch_id, "by": by or actor(), "at_ms": at_ms})
        key = self._store.keys.purged
        with self._store.talking(), self._store.redis.pipeline() as pipe:
            pipe.rpush(key, line)
            pipe.ltrim(key, -PURGES_KEPT, -1)
            pipe.expire(key, PURGES_TOLD)
            pipe.execute()

    def of(self, batch_id: str) -> list[AuditLine]:
        """Return what was done to a batch, the oldest first."""
        key = self._store.keys.batch(batch_id).audit
        return [_line(each, batch_id=batch_id) for each in self._read(key)]

    def purges(self) -> list[AuditLine]:
        """Return which batches were purged lately, the oldest first."""
        return [_line(each, did="purge") for each in self._read(self._store.keys.purged)]

    def _read(self, key: str) -> list[dict[str, Any]]:
        with self._store.talking():
            found: Any = self._store.redis.lrange(key, 0, -1)
        return [json.loads(text) for text in found]


def _line(found: dict[str, Any], *, did: str = "", batch_id: str = "") -> AuditLine:
    return AuditLine(
        at=datetime.fromtimestamp(int(found["at_ms"]) / 1000, UTC),
        did=did or found["did"],
        by=found["by"],
        batch_id=batch_id or found["batch_id"],
    )
