"""Submitting again what of a cancelled or expired batch has never run, as a batch of its own."""

from collections.abc import Iterator, Mapping
from typing import Final

from celery import Celery

from batchord.ledger.core.json_values import decode, encode
from batchord.ledger.core.message_ids import new_batch_id
from batchord.ledger.core.sharding import Cut
from batchord.ledger.errors import SubmitRefused
from batchord.ledger.models import BatchRecord, BatchStatus, Item, ItemStatus
from batchord.ledger.needs import FORMAT
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.producer.inputs import Block
from batchord.producer.recording import Opening, Recording, SubmittedBefore
from batchord.producer.submission import accept
from batchord.producer.submit_options import METADATA_LIMITS

#: What a new batch has of the old one's `meta`.
_KEPT: Final = (
    *("chain", "chain_version", "spec", "config", "budget_tokens", "budget_nanos"),
    *("dedupe", "cache", "mode", "provider_retry", "apart"),
)
#: The key of its metadata that names the old batch.
RETRY_OF: Final = "retry_of"

_UNRUN: Final = (ItemStatus.CANCELLED, ItemStatus.EXPIRED)


def resubmit(app: Celery, store: BatchStore, batch_id: str) -> str:
    """Submit the items that were cancelled or expired as a new batch; return its id.

    The inputs are copied as they are, with their custom_ids, in their order, and so are chain,
    version, options and metadata, to which `retry_of` is added. Asked for again, it is the same
    batch.

    Raises:
        UnknownBatch: there is no such batch.
        SubmitRefused: it is neither cancelled nor expired, or each of its items has run.
    """
    reader = BatchReader(store)
    record = reader.record(batch_id)
    if record.status not in (BatchStatus.CANCELLED, BatchStatus.EXPIRED):
        raise SubmitRefused(
            f"batch {batch_id} is {record.status}: only what a cancelled or expired batch has not "
            "run can be submitted again (`retry` runs the failed items of a completed one)"
        )
    meta = reader.fields(batch_id)
    blocks = _blocks(reader, record)
    first = next(blocks, None)
    if first is None:
        raise SubmitRefused(f"batch {batch_id}: each of its items has run, none is left")
    key = f"{RETRY_OF} {batch_id}"
    fields = _fields(store, record, meta) | {"idempotency_key": key}
    opening = Opening(chain=record.chain, fields=fields, key=key, outbox={})
    recording, cut = Recording(store, reader, new_batch_id(), opening), _cut(meta)
    try:
        with recording.alive():
            recording.open()
            recording.append(first)
            for block in blocks:
                recording.append(block)
            accept(app, recording, cut, _window(record))
    except SubmittedBefore as before:
        recording.take_back(before)
        return before.record.id
    except BaseException as error:
        if recording.take_back(error):
            raise
    return recording.batch_id


def _fields(store: BatchStore, record: BatchRecord, meta: Mapping[str, str]) -> dict[str, str]:
    fields = {name: meta[name] for name in _KEPT if name in meta}
    metadata = decode(meta.get("metadata", "{}"))
    if len(metadata) < METADATA_LIMITS[0]:
        metadata[RETRY_OF] = record.id
    fields["metadata"] = encode(metadata, max_bytes=65_536, setting="metadata")
    return fields | {"format": str(FORMAT), "lane": str(store.quiet_lane())}


def _cut(meta: Mapping[str, str]) -> Cut:
    """Return how the old batch was cut."""
    per_task, most = meta["items_per_task"], meta.get("most_items")
    return Cut(
        items_per_task=None if per_task == "auto" else int(per_task),
        items_per_slot=int(meta["items_per_slot"]),
        shard_tasks=int(meta["shard_tasks"]),
        shard_items=int(meta["shard_items"]),
        window=int(meta["window"]),
        priority=int(meta["priority"]),
        most_items=None if most is None else int(most),
    )


def _window(record: BatchRecord) -> float | None:
    """Return the completion window that the old batch had, in seconds."""
    if record.expires_at is None or record.in_progress_at is None:
        return None
    return (record.expires_at - record.in_progress_at).total_seconds()


def _blocks(reader: BatchReader, record: BatchRecord) -> Iterator[Block]:
    """Yield blocks of the inputs that never ran, as they were recorded."""
    block = Block(start=0)
    for item, text in _unrun(reader, record):
        block.inputs.append(text)
        block.size += len(text)
        if item.custom_id is not None:
            if block.custom_ids is None:
                block.custom_ids = []
            block.custom_ids.append(item.custom_id)
        if block.full:
            yield block
            block = Block(start=block.stop)
    if block.inputs:
        yield block


def _unrun(reader: BatchReader, record: BatchRecord) -> Iterator[tuple[Item, str]]:
    for start in range(0, record.request_counts.total, PAGE_SIZE):
        items = reader.items(record.id, start, start + PAGE_SIZE)
        items = [item for item in items if item.status in _UNRUN]
        texts = reader.input_texts(record.id, [item.index for item in items])
        yield from zip(items, texts, strict=True)
