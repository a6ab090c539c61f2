"""Conversion of the ledger's keys to the models that callers get."""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from batchord.chains import BatchordError, Usage
from batchord.chains.runtime.tracing import TRACEPARENT
from batchord.ledger.budget import budget_of
from batchord.ledger.core.compression import unpack_outcome
from batchord.ledger.core.json_values import decode
from batchord.ledger.errors import LedgerRefused, OtherFormat, UnreadableBatch
from batchord.ledger.models import (
    BatchRecord,
    BatchStatus,
    Item,
    ItemStatus,
    Mode,
    PauseReason,
    RequestCounts,
)
from batchord.ledger.needs import FORMATS, format_of

_USAGE: Final = tuple(Usage.model_fields)


@contextmanager
def reading(batch_id: str) -> Iterator[None]:
    """Raise `UnreadableBatch` for what is wrong with the keys of this batch."""
    try:
        yield
    except LedgerRefused as error:
        if error.server_wide:
            raise
        raise UnreadableBatch(batch_id, type(error).__name__) from error
    except BatchordError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, zlib.error) as error:
        # Not its text: pydantic's quotes the value.
        why = f"field {error}" if isinstance(error, KeyError) else type(error).__name__
        raise UnreadableBatch(batch_id, why) from error


def record_of(batch_id: str, meta: Any, running: Any, put_off: Any) -> BatchRecord:
    """Return the batch that these replies of Redis describe.

    Raises:
        UnreadableBatch: a reply is an error, or a field is missing or not what it must be.
    """
    with reading(batch_id):
        for reply in (meta, running, put_off):
            if isinstance(reply, Exception):
                raise reply
        return _record_of(batch_id, meta, running, put_off)


def _record_of(batch_id: str, meta: dict[str, str], running: int, put_off: int) -> BatchRecord:
    format_ = check_format(batch_id, meta.get("format"))
    usage = {name: int(meta[f"usage.{name}"]) for name in _USAGE if f"usage.{name}" in meta}
    return BatchRecord(
        id=batch_id,
        chain=meta["chain"],
        chain_version=meta.get("chain_version"),
        traceparent=meta.get(TRACEPARENT),
        format=format_,
        status=BatchStatus(meta["status"]),
        request_counts=RequestCounts(
            total=int(meta.get("total", 0)),
            succeeded=int(meta.get("succeeded", 0)),
            failed=int(meta.get("failed", 0)),
            cancelled=int(meta.get("cancelled", 0)),
            expired=int(meta.get("expired", 0)),
        ),
        mode=Mode(meta.get("mode", Mode.LIVE)),
        provider_retry="live" if meta.get("provider_retry") == "live" else None,
        provider_done=int(meta["provider_done"]) if "provider_done" in meta else None,
        running=running,
        put_off=put_off,
        reason=PauseReason.model_validate_json(meta["reason"]) if "reason" in meta else None,
        usage=Usage(**usage) if usage else None,
        budget=budget_of(meta),
        metadata=decode(meta.get("metadata", "{}")),
        idempotency_key=meta.get("idempotency_key"),
        dedupe="dedupe" in meta,
        cache="cache" in meta,
        created_at=_time(meta["created_at"]),
        in_progress_at=_maybe_time(meta.get("in_progress_at")),
        finalizing_at=_maybe_time(meta.get("finalizing_at")),
        cancelling_at=_maybe_time(meta.get("cancelling_at")),
        expires_at=_maybe_time(meta.get("expires_at")),
        ended_at=_maybe_time(meta.get("ended_at")),
    )


def check_format(batch_id: str, text: str | None) -> int:
    """Return the format of a batch, of what its `meta` says.

    Raises:
        OtherFormat: this version does not serve it.
    """
    if (format_ := format_of(text)) not in FORMATS:
        raise OtherFormat(batch_id, format_, FORMATS)
    return format_


def _time(ms: str) -> datetime:
    return datetime.fromtimestamp(int(ms) / 1000, UTC)


def _maybe_time(ms: str | None) -> datetime | None:
    return None if ms is None else _time(ms)


def item_of(index: int, outcome: str | None, custom_id: str | None, run: str | None) -> Item:
    """Return the item that these entries, each where there is one, describe."""
    if outcome is not None:
        name = "null" if custom_id is None else json.dumps(custom_id)
        # One pass in pydantic's own parser: a caller may read a million of them.
        head = f'{{"index":{index},"custom_id":{name},'
        return Item.model_validate_json(head + unpack_outcome(outcome)[1:])
    if run is not None:
        return Item(
            index=index,
            custom_id=custom_id,
            status=ItemStatus.QUEUED if run.endswith(" waits") else ItemStatus.RUNNING,
            attempts=int(run.split(" ", 1)[0]),
        )
    return Item(index=index, custom_id=custom_id)
