"""Output and error files by id: whose they are, and whether they are there."""

from dataclasses import dataclass
from typing import Any

from batchord.gateway.batches.lookup import Found, find
from batchord.gateway.calls import Call
from batchord.gateway.files.lines import size_of
from batchord.gateway.files.objects import view_object
from batchord.gateway.view_ids import KINDS, Kind, lines_in, view_of
from batchord.ledger.models import BatchRecord


@dataclass(frozen=True)
class View:
    """An output or error file that is there."""

    found: Found
    record: BatchRecord
    kind: Kind

    @property
    def is_final(self) -> bool:
        """Whether its lines change no more."""
        return self.record.status.ended


def view(call: Call, file_id: str) -> View | None:
    """Return a tenant's output or error file; None: it has none of this id, or it has expired."""
    named = view_of(file_id)
    found = None if named is None else find(call, named[0])
    if named is None or found is None or found.record is None:
        return None
    return _there(call, found, found.record, named[1])


def _there(call: Call, found: Found, record: BatchRecord, kind: Kind) -> View | None:
    ttl, ended = found.api.output_ttl, record.ended_at
    over = False
    if ttl is not None and ended is not None:
        over = call.backend.store.now() > ended.timestamp() + ttl
    if over or kind in found.api.deleted or not lines_in(record, kind):
        return None
    return View(found, record, kind)


def views_of(call: Call, found: Found) -> list[View]:
    """Return the output and error files of a batch that has ended."""
    record = found.record
    if record is None or not record.status.ended:
        return []
    there = (_there(call, found, record, kind) for kind in KINDS)
    return [view for view in there if view is not None]


def size(call: Call, view: View) -> int:
    """Return the bytes of an output or error file; of a final one they are counted once."""
    backend, record = call.backend, view.record
    ended = None if record.ended_at is None else record.ended_at.timestamp()
    known = None if ended is None else backend.batches.size(record.id, view.kind, ended)
    if known is None:
        known = size_of(backend, record.id, record.request_counts.total, view.kind)
        if ended is not None:
            backend.batches.set_size(record.id, view.kind, known, ended)
    return known


def described(call: Call, view: View) -> dict[str, Any]:
    """Return its file object."""
    return view_object(view.found.api, view.record, view.kind, size(call, view))
