"""`/v1/files`: list, retrieve and delete."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from batchord.gateway.batches.lookup import find_all
from batchord.gateway.calls import Call
from batchord.gateway.errors import invalid, not_found
from batchord.gateway.files import views
from batchord.gateway.files.objects import file_object
from batchord.gateway.maintenance import delete_bytes
from batchord.gateway.paging import behind, limit_of, page
from batchord.gateway.view_ids import view_id

#: OpenAI's bounds: a page has as many files unless it says otherwise.
_MOST: Final = 10_000


class _Entry(NamedTuple):
    created: float
    id: str
    purpose: str
    describe: Callable[[], dict[str, Any]]


def list_files(call: Call) -> dict[str, Any]:
    """Return a page of the tenant's files: uploads, and output and error files of ended batches."""
    limit = limit_of(call.query, default=_MOST, most=_MOST)
    order = call.query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("order must be 'asc' or 'desc'", "order")
    purpose = call.query.get("purpose")
    entries = [each for each in _entries(call) if purpose in (None, each.purpose)]
    entries.sort(key=lambda each: each[:2], reverse=order == "desc")
    start = behind([each.id for each in entries], call.query)
    data = [each.describe() for each in entries[start : start + limit]]
    return page(data, more=len(entries) > start + limit)


def _entries(call: Call) -> list[_Entry]:
    backend, tenant = call.backend, call.tenant.name
    entries = [
        _Entry(file.created_at, file.id, file.purpose, lambda file=file: file_object(file))  # type: ignore[misc]
        for file in backend.files.all(tenant)
    ]
    for found in find_all(call, backend.batches.newest(tenant)):
        for view in [] if found is None else views.views_of(call, found):
            ended = view.record.ended_at
            entries.append(
                _Entry(
                    0.0 if ended is None else ended.timestamp(),
                    view_id(view.record.id, view.kind),
                    "batch_output",
                    lambda view=view: views.described(call, view),  # type: ignore[misc]
                )
            )
    return entries


def retrieve_file(call: Call) -> dict[str, Any]:
    """Return a file object."""
    file_id = call.path["id"]
    file = call.backend.files.get(call.tenant.name, file_id)
    if file is not None:
        return file_object(file)
    view = views.view(call, file_id)
    if view is None:
        raise not_found("file", file_id)
    return views.described(call, view)


def delete_file(call: Call) -> dict[str, Any]:
    """Delete a file; a batch that reads it goes on, and of an output file the ledger keeps all."""
    file_id = call.path["id"]
    file = call.backend.files.get(call.tenant.name, file_id)
    if file is not None:
        call.backend.files.delete(file)
        delete_bytes(call.backend, file_id)
    else:
        view = views.view(call, file_id)
        if view is None:
            raise not_found("file", file_id)
        call.backend.batches.delete_output(view.found.api, view.kind)
    return {"id": file_id, "object": "file", "deleted": True}
