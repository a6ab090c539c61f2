"""OpenAI's file object, of uploaded files and of the views of a batch's answers."""

from typing import Any

from batchord.gateway.view_ids import Kind, view_id
from batchord.ledger.models import BatchRecord
from batchord.ledger.storage.api_batches import ApiBatch
from batchord.ledger.storage.api_files import ApiFile


def file_object(file: ApiFile) -> dict[str, Any]:
    """Return an uploaded file."""
    return _object(
        file.id, file.bytes, int(file.created_at), file.expires_at, file.filename, file.purpose
    )


def view_object(batch: ApiBatch, record: BatchRecord, kind: Kind, size: int) -> dict[str, Any]:
    """Return the output or error file of a batch; `size` in bytes."""
    ended = record.ended_at
    created = int(batch.created_at if ended is None else ended.timestamp())
    expires = None if batch.output_ttl is None else created + batch.output_ttl
    name = f"{batch.id}_{kind}.jsonl"
    return _object(view_id(batch.id, kind), size, created, expires, name, "batch_output")


def _object(
    file_id: str, size: int, created: int, expires: int | None, filename: str, purpose: str
) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": created,
        "expires_at": expires,
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }
