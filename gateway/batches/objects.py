"""OpenAI's batch object: every key always there, null where unset, times in whole seconds."""

from datetime import datetime
from typing import Any, Final

from batchord.chains.usage import Usage
from batchord.gateway.batches.lookup import Found
from batchord.gateway.view_ids import Kind, lines_in, view_id
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.storage.api_batches import ApiBatch

#: OpenAI has no `paused`: the reason is told beside the status.
_STATUSES: Final = {BatchStatus.PAUSED: BatchStatus.IN_PROGRESS}


def batch_object(found: Found) -> dict[str, Any]:
    """Return a batch as OpenAI's SDKs read it; what is beyond OpenAI is in `batchord`."""
    api, record = found.api, found.record
    return {
        "id": api.id,
        "object": "batch",
        "endpoint": api.endpoint,
        "model": api.model,
        "errors": _errors(api),
        "input_file_id": api.input_file_id,
        "completion_window": api.completion_window,
        "status": _status(api, record),
        "output_file_id": _file(record, "output"),
        "error_file_id": _file(record, "error"),
        "created_at": int(api.created_at),
        "in_progress_at": _time(record, "in_progress_at"),
        "expires_at": _expires(api, record),
        "finalizing_at": _time(record, "finalizing_at"),
        "completed_at": _ended_as(record, BatchStatus.COMPLETED),
        "failed_at": _whole(api.failed_at) or _ended_as(record, BatchStatus.FAILED),
        "expired_at": _ended_as(record, BatchStatus.EXPIRED),
        "cancelling_at": _whole(api.cancelling_at) or _time(record, "cancelling_at"),
        "cancelled_at": _whole(api.cancelled_at) or _ended_as(record, BatchStatus.CANCELLED),
        "request_counts": _counts(record),
        "usage": _usage(record.usage) if record is not None and record.usage else None,
        "metadata": api.metadata,
        "batchord": _more(record),
    }


def _status(api: ApiBatch, record: BatchRecord | None) -> str:
    if record is not None:
        return str(_STATUSES.get(record.status, record.status))
    if api.status == "validating" and api.cancelling_at is not None:
        return "cancelling"
    return api.status


def _errors(api: ApiBatch) -> dict[str, Any] | None:
    return {"object": "list", "data": api.errors} if api.errors else None


def _file(record: BatchRecord | None, kind: Kind) -> str | None:
    """Return the id of a file that is complete and not empty."""
    if record is None or not record.status.ended or not lines_in(record, kind):
        return None
    return view_id(record.id, kind)


def _counts(record: BatchRecord | None) -> dict[str, int]:
    if record is None:
        return {"total": 0, "completed": 0, "failed": 0}
    counts = record.request_counts
    return {"total": counts.total, "completed": counts.succeeded, "failed": counts.failed}


def _usage(usage: Usage) -> dict[str, Any]:
    used, made = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": used,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens or 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": used + made,
    }


def _more(record: BatchRecord | None) -> dict[str, Any]:
    reason = None if record is None else record.reason
    return {
        "paused": record is not None and record.status is BatchStatus.PAUSED,
        "reason": None if reason is None else {"code": reason.code, "message": reason.message},
    }


def _expires(api: ApiBatch, record: BatchRecord | None) -> int:
    found = _time(record, "expires_at")
    return int(api.created_at + api.window) if found is None else found


def _ended_as(record: BatchRecord | None, status: BatchStatus) -> int | None:
    return _time(record, "ended_at") if record is not None and record.status is status else None


def _time(record: BatchRecord | None, name: str) -> int | None:
    when: datetime | None = None if record is None else getattr(record, name)
    return None if when is None else int(when.timestamp())


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
