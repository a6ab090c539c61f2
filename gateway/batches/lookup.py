"""A tenant's batches: what was asked for, and what the ledger has of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batchord.gateway.calls import Call
from batchord.gateway.errors import not_found
from batchord.ledger.core.message_ids import is_batch_id
from batchord.ledger.errors import UnreadableBatch
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.storage.api_batches import ApiBatch

#: Where the ledger may have a batch.
_IN_LEDGER: Final = ("validating", "submitted")


@dataclass(frozen=True)
class Found:
    """A batch: as it was asked for, and the ledger's record once it was submitted."""

    api: ApiBatch
    record: BatchRecord | None


def find(call: Call, batch_id: str) -> Found | None:
    """Return a tenant's batch; None: it has none of this id, or its results have expired."""
    if not is_batch_id(batch_id):
        return None
    [found] = find_all(call, [batch_id], strict=True)
    return found


def get(call: Call) -> Found:
    """Return the batch that the path names; ApiError (404) if the tenant has none of this id."""
    batch_id = call.path["id"]
    found = find(call, batch_id)
    if found is None:
        raise not_found("batch", batch_id)
    return found


def find_all(call: Call, batch_ids: Sequence[str], *, strict: bool = False) -> list[Found | None]:
    """Return these batches of a tenant, as `find` does.

    A batch whose record is damaged is left out; `strict`: it raises UnreadableBatch.
    """
    backend = call.backend
    known = [
        None if api is None or api.tenant != call.tenant.name else api
        for api in backend.batches.of(batch_ids)
    ]
    asked = [api.id for api in known if api is not None and api.status in _IN_LEDGER]
    records = dict(zip(asked, backend.reader.look(asked), strict=True))
    for found in records.values():
        if strict and isinstance(found, UnreadableBatch):
            raise found
    return [None if api is None else _found(call, api, records.get(api.id)) for api in known]


def _found(call: Call, api: ApiBatch, record: BatchRecord | UnreadableBatch | None) -> Found | None:
    if isinstance(record, UnreadableBatch):
        return None
    if record is not None and record.status is BatchStatus.VALIDATING:
        record = None  # it is being written
    if api.status == "submitted" and record is None:
        call.backend.batches.forget(api.tenant, [api.id])  # it was purged, or has expired
        return None
    return Found(api, record)
