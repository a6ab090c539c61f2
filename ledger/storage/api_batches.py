"""The batches of `batchord serve` as they were asked for, and how their validation goes.

A batch has its id from the first moment on. While it is validated there is this record alone; what
passes validation is submitted under the same id, and the ledger tells of the rest.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from batchord.chains.steps.raw_request import REQUESTS
from batchord.ledger.storage.batch_store import BatchStore

#: Seconds beyond its window and the life of its results for which a batch is remembered.
_MARGIN: Final = 24 * 3600

ApiStatus = Literal["validating", "submitted", "failed", "cancelled"]


@dataclass(frozen=True)
class ApiBatch:
    """A batch as its caller asked for it. Times are seconds since 1970, by the server's clock."""

    id: str
    tenant: str
    #: `submitted`: the ledger has it.
    status: ApiStatus
    endpoint: str
    input_file_id: str
    completion_window: str
    #: The window in seconds.
    window: float
    created_at: float
    metadata: dict[str, str] | None = None
    #: Seconds for which output and error file live; None: as long as the batch.
    output_ttl: int | None = None
    #: Options beyond OpenAI's: priority, max_concurrency, budget, dedupe.
    options: dict[str, Any] = field(default_factory=dict)
    #: Requests in the input file.
    lines: int = 0
    #: The model of all lines; None: there are several.
    model: str | None = None
    #: What validation has found.
    errors: list[dict[str, Any]] = field(default_factory=list)
    failed_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    #: What the arguments of `create` were, as a hash.
    fingerprint: str = ""
    #: Kinds of output files that were deleted: `output`, `error`.
    deleted: frozenset[str] = frozenset()


class TooMany(Exception):
    """A tenant has as many `batches` or `items` as it may have at a time; `what` says of which."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class ApiBatches:
    """The batches of all tenants; it borrows the store's connection."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._keys = store.keys
        # The replies of redis-py are typed for sync and async clients at once; this one is sync.
        self._redis: Any = store.redis

    def create(
        self,
        batch_id: str,
        fields: Mapping[str, Any],
        *,
        window: float,
        key: str | None,
        most_batches: int | None = None,
        most_items: int | None = None,
    ) -> str:
        """Record a batch that is to be validated; return its id, or that of the one with this key.

        `fields`: those of an `ApiBatch`; `key`: the caller's Idempotency-Key; `most_batches`,
        `most_items`: what the tenant may have at a time.

        Raises:
            TooMany: the tenant has as many already; nothing is recorded.
        """
        tenant = str(fields["tenant"])
        keys = {
            "record": self._record(batch_id),
            "batches_of_tenant": self._keys.api("batches", tenant),
            "validating": self._keys.api("validating"),
            "readers_of_file": self._keys.api("readers", str(fields["input_file_id"])),
            "live_of_tenant": self._keys.api("live", tenant),
        }
        if key is not None:
            keys["idempotency_key"] = self._keys.api_idempotency(tenant, key)
        made = str(
            self._store.transition(
                "api_create",
                batch_id,
                keys=keys,
                ttl_s=self._ttl(window),
                most_batches=most_batches or 0,
                most_items=most_items or 0,
                items=int(fields["lines"]),
                records=[(name, _text(value)) for name, value in fields.items()],
            )
        )
        if made in ("batches", "items"):
            raise TooMany(made)
        return made

    def known(self, tenant: str, key: str | None) -> bool:
        """Whether an Idempotency-Key names a batch."""
        if key is None:
            return False
        with self._store.talking():
            return bool(self._redis.exists(self._keys.api_idempotency(tenant, key)))

    def live(self, tenant: str) -> list[str]:
        """Return the batches of a tenant that were not known to have ended."""
        with self._store.talking():
            return sorted(map(str, self._redis.hkeys(self._keys.api("live", tenant))))

    def have_ended(self, tenant: str, batch_ids: Sequence[str]) -> None:
        """Note that batches count no more against what the tenant may have at a time."""
        with self._store.talking():
            self._redis.hdel(self._keys.api("live", tenant), *batch_ids)

    def live_again(self, batch: ApiBatch) -> None:
        """Note that a batch counts again, as its failed requests run again."""
        with self._store.talking():
            self._redis.hset(self._keys.api("live", batch.tenant), batch.id, batch.lines)

    def get(self, tenant: str, batch_id: str) -> ApiBatch | None:
        """Return a tenant's batch; None: it has none of this id."""
        [batch] = self.of([batch_id])
        return batch if batch is not None and batch.tenant == tenant else None

    def of(self, batch_ids: Sequence[str]) -> list[ApiBatch | None]:
        """Return these batches, in one round trip; None: it is unknown."""
        with self._store.redis.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids:
                pipe.hgetall(self._record(batch_id))
            replies = self._store.replies(pipe)
        return [
            _batch(batch_id, fields) if fields and not isinstance(fields, Exception) else None
            for batch_id, fields in zip(batch_ids, replies, strict=True)
        ]

    def newest(self, tenant: str) -> list[str]:
        """Return the ids of all batches of a tenant, the newest first."""
        with self._store.talking():
            found = self._redis.zrevrange(self._keys.api("batches", tenant), 0, -1)
        return [str(each) for each in found]

    def forget(self, tenant: str, batch_ids: Sequence[str]) -> None:
        """Forget batches that the ledger has no more."""
        with self._store.talking(), self._redis.pipeline() as pipe:
            pipe.zrem(self._keys.api("batches", tenant), *batch_ids)
            pipe.delete(*map(self._record, batch_ids))
            pipe.execute()

    def keep(self, batch: ApiBatch) -> None:
        """Let the record live as long as a batch whose window begins now."""
        ttl = self._ttl(batch.window)
        with self._store.talking(), self._redis.pipeline() as pipe:
            for name in (
                self._record(batch.id),
                self._keys.api("batches", batch.tenant),
                self._keys.api("live", batch.tenant),
            ):
                pipe.expire(name, ttl, gt=True)
            pipe.execute()

    def cancel(self, batch_id: str) -> None:
        """Note that the batch is to be cancelled, unless it has failed or was cancelled."""
        self._store.transition("api_cancel", keys={"record": self._record(batch_id)})

    def delete_output(self, batch: ApiBatch, kind: str) -> None:
        """Note that its output or error file was deleted."""
        deleted = ",".join(sorted({*batch.deleted, kind}))
        with self._store.talking():
            self._redis.hset(self._record(batch.id), "deleted", deleted)

    def set_size(self, batch_id: str, kind: str, size: int, ended_at: float) -> None:
        """Keep the size of the output or error file of a batch that has ended."""
        with self._store.talking():
            self._redis.hset(self._record(batch_id), f"size.{kind}", f"{ended_at} {size}")

    def size(self, batch_id: str, kind: str, ended_at: float) -> int | None:
        """Return the size that was kept at this end of the batch; None: it was not counted yet."""
        with self._store.talking():
            found = self._redis.hget(self._record(batch_id), f"size.{kind}")
        end, _, size = (found or "").partition(" ")
        return int(size) if end == str(ended_at) else None

    # Validation.

    def take(self, *, lease: float) -> str | None:
        """Take a batch to validate, under a lease of so long; None: there is nothing to do."""
        keys, lease_ms = {"validating": self._keys.api("validating")}, int(1000 * lease)
        return str(self._store.transition("api_take", keys=keys, lease_ms=lease_ms)) or None

    def renew(self, batch_ids: Sequence[str], *, lease: float) -> None:
        """Renew the leases of batches that are being validated."""
        keys, lease_ms = {"validating": self._keys.api("validating")}, int(1000 * lease)
        self._store.transition("api_beat", keys=keys, lease_ms=lease_ms, records=batch_ids)

    def conclude(
        self,
        batch_id: str,
        status: ApiStatus,
        fields: Mapping[str, Any] | None = None,
        *,
        webhook: tuple[str, str] = ("", ""),
    ) -> bool:
        """End a validation; False if it was ended before.

        `webhook`: the URL where the end of a batch that does not run is told, and the variable of
        its secret; empty: where the deployment's are.
        """
        return bool(
            self._store.transition(
                "api_conclude",
                batch_id,
                keys={
                    "record": self._record(batch_id),
                    "validating": self._keys.api("validating"),
                },
                status=status,
                stamp=f"{status}_at",
                chain=REQUESTS,
                ttl_s=self._store.settings.result_ttl,
                webhook=webhook[0],
                webhook_secret=webhook[1],
                records=[(name, _text(value)) for name, value in (fields or {}).items()],
            )
        )

    def count_try(self, batch_id: str) -> int:
        """Count that an error of the server's own has ended a validation; return how often."""
        with self._store.talking():
            return int(self._redis.hincrby(self._record(batch_id), "tries", 1))

    def _record(self, batch_id: str) -> str:
        return self._keys.api("batch", batch_id)

    def _ttl(self, window: float) -> int:
        return int(window) + self._store.settings.result_ttl + _MARGIN


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _batch(batch_id: str, fields: dict[str, str]) -> ApiBatch:
    status: Any = fields["status"]
    return ApiBatch(
        id=batch_id,
        tenant=fields["tenant"],
        status=status,
        endpoint=fields["endpoint"],
        input_file_id=fields["input_file_id"],
        completion_window=fields["completion_window"],
        window=float(fields["window"]),
        created_at=int(fields["created_at"]) / 1000,
        metadata=json.loads(fields.get("metadata", "null")),
        output_ttl=json.loads(fields.get("output_ttl", "null")),
        options=json.loads(fields.get("options", "{}")),
        lines=int(fields.get("lines", 0)),
        model=fields.get("model") or None,
        errors=json.loads(fields.get("errors", "[]")),
        failed_at=_seconds(fields.get("failed_at")),
        cancelling_at=_seconds(fields.get("cancelling_at")),
        cancelled_at=_seconds(fields.get("cancelled_at")),
        fingerprint=fields.get("fingerprint", ""),
        deleted=frozenset(filter(None, fields.get("deleted", "").split(","))),
    )


def _seconds(ms: str | None) -> float | None:
    return None if ms is None else int(ms) / 1000
