"""`/v1/batches`: retrieve, list and cancel."""

from typing import Any, Final

from batchord.gateway.batches.lookup import Found, find_all, get
from batchord.gateway.batches.objects import batch_object
from batchord.gateway.calls import Call
from batchord.gateway.errors import invalid
from batchord.gateway.paging import behind, limit_of, page

#: OpenAI's bounds of a page.
_DEFAULT: Final = 20
_MOST: Final = 100


def retrieve(call: Call) -> dict[str, Any]:
    """Return a batch."""
    found = get(call)
    if found.record is not None and not found.record.status.ended:
        call.backend.batches.keep(found.api)  # a paused batch may outlive its window
    return batch_object(found)


def list_batches(call: Call) -> dict[str, Any]:
    """Return a page of the tenant's batches, the newest first."""
    limit = limit_of(call.query, default=_DEFAULT, most=_MOST)
    ids = call.backend.batches.newest(call.tenant.name)
    start = behind(ids, call.query)
    there: list[Found] = []
    while start < len(ids) and len(there) <= limit:
        some = find_all(call, ids[start : start + limit + 1])
        there += [found for found in some if found is not None]
        start += limit + 1
    return page([batch_object(found) for found in there[:limit]], more=len(there) > limit)


def cancel(call: Call) -> dict[str, Any]:
    """Cancel a batch: what has an outcome keeps it. A second time changes nothing."""
    found = get(call)
    status = batch_object(found)["status"]
    if status in ("completed", "failed", "expired"):
        raise invalid(f"Cannot cancel a batch with status '{status}'.", code="invalid_status")
    if status not in ("cancelling", "cancelled"):
        call.backend.batches.cancel(found.api.id)
        found = get(call)  # it may have been submitted since
    if found.record is not None and not found.record.status.ended:
        call.backend.control.cancel(found.api.id, by=call.actor)
        found = get(call)
    return batch_object(found)
