"""Beyond OpenAI: pause, resume and retry a batch, and look at its progress."""

from typing import Any, Final

from batchord.gateway.batches.lookup import Found, get
from batchord.gateway.batches.objects import batch_object
from batchord.gateway.batches.quotas import check_day
from batchord.gateway.calls import Call
from batchord.gateway.errors import invalid
from batchord.gateway.view_ids import KINDS, lines_in, view_id
from batchord.ledger.budget import Budget
from batchord.ledger.models import BatchRecord

#: Fields of a `Progress` that are not told twice.
_TOLD_ALREADY: Final = {"id", "status", "request_counts"}


def pause(call: Call) -> dict[str, Any]:
    """Let no new request start until the batch is resumed."""
    _, record = _submitted(call)
    call.backend.control.pause(record.id, by=call.actor)
    return batch_object(get(call))


def resume(call: Call) -> dict[str, Any]:
    """Let a paused batch go on; a `budget` in the body replaces its own."""
    _, record = _submitted(call)
    check_day(call)
    call.backend.control.resume(record.id, _budget(call), by=call.actor)
    return batch_object(get(call))


def retry(call: Call) -> dict[str, Any]:
    """Run failed requests of a completed batch again; `codes` in the body: only those."""
    found, record = _submitted(call)
    codes = call.body.get("codes")
    if codes is not None and not (
        isinstance(codes, list) and all(isinstance(each, str) for each in codes)
    ):
        raise invalid("codes: a list of error codes", "codes")
    check_day(call)
    call.backend.batches.keep(found.api)
    call.backend.control.retry_failed(record.id, codes, by=call.actor)
    call.backend.batches.live_again(found.api)
    return batch_object(get(call))


def progress(call: Call) -> dict[str, Any]:
    """Return rate, ETA, failures by code and cost; and the files, which can be read meanwhile."""
    found = get(call)
    told = batch_object(found)
    said: dict[str, Any] = {
        "id": told["id"],
        "object": "batch.progress",
        "status": told["status"],
        "request_counts": told["request_counts"],
        **told["batchord"],
    }
    record = found.record
    if record is not None:
        known = call.backend.reader.progress(record.id)
        said |= known.model_dump(mode="json", exclude=_TOLD_ALREADY)
    for kind in KINDS:
        there = record is not None and lines_in(record, kind)
        said[f"{kind}_file_id"] = view_id(found.api.id, kind) if there else None
    return said


def _submitted(call: Call) -> tuple[Found, BatchRecord]:
    found = get(call)
    if found.record is None:
        status = batch_object(found)["status"]
        raise invalid(f"A batch with status '{status}' does not run.", code="invalid_status")
    return found, found.record


def _budget(call: Call) -> Budget | None:
    given = call.body.get("budget")
    if given is None:
        return None
    if not isinstance(given, dict) or not given.keys() <= {"usd", "tokens"}:
        raise invalid('budget: {"usd": ..., "tokens": ...}, or one of them', "budget")
    return Budget(**given)
