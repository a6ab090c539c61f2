"""A tenant's batches: what was asked for, and what the ledger has of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from batchord.gateway.calls import Call
from batchord.gateway.errors import not_found
from batchord.ledger.core.message_ids import is_batch_id
from batchord.ledger.errors import UnknownBatch
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.storage.api_batches import ApiBatch


@dataclass(frozen=True)
class Found:
    """A batch: as it was asked for, and the ledger's record once it was submitted."""

    api: ApiBatch
    record: BatchRecord | None


def find(call: Call, batch_id: str) -> Found | None:
    """Return a tenant's batch; None: it has none of this id, or its results have expired."""
    if not is_batch_id(batch_id):
        return None
    [found] = find_all(call, [batch_id])
    return found


def get(call: Call) -> Found:
    """Return the batch that the path names; ApiError (404) if the tenant has none of this id."""
    batch_id = call.path["id"]
    found = find(call, batch_id)
    if found is None:
        raise not_found("batch", batch_id)
    return found


def find_all(call: Call, batch_ids: Sequence[str]) -> list[Found | None]:
    """Return these batches of a tenant, as `find` does."""
    backend = call.backend
    known = backend.batches.of(batch_ids)
    return [
        None if api is None or api.tenant != call.tenant.name else _found(call, api)
        for api in known
    ]


def _found(call: Call, api: ApiBatch) -> Found | None:
    record = None
    if api.status in ("validating", "submitted"):
        try:
            record = call.backend.reader.record(api.id)
        except UnknownBatch:
            record = None
        if record is not None and record.status is BatchStatus.VALIDATING:
            record = None  # it is being written
    if api.status == "submitted" and record is None:
        call.backend.batches.forget(api.tenant, [api.id])  # it was purged, or has expired
        return None
    return Found(api, record)
