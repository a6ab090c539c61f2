"""Output and error files as views of the ledger: lines in input order, nothing stored twice."""

import json
from collections.abc import Iterator
from typing import Final

from batchord.gateway.backend import Backend
from batchord.gateway.view_ids import Kind
from batchord.io import openai_lines
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.models import Item
from batchord.ledger.storage.keys import PAGE_SIZE

#: Items that are read at a time: an answer with vectors may have a megabyte.
_AT_ONCE: Final = 50
#: Bytes that are sent at a time, or more.
_BLOCK: Final = 65_536


def line(batch_id: str, item: Item) -> bytes:
    """Return what became of a request, as a line of OpenAI's; see `batchord.io.openai_lines`."""
    fields = {
        "id": f"batch_req_{batch_id.removeprefix('batch_')}{item.index:08x}",
        "custom_id": item.custom_id,
        **openai_lines.outcome(item),
    }
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def lines(backend: Backend, batch_id: str, total: int, kind: Kind) -> Iterator[bytes]:
    """Yield the lines of the output or error file as it is now, some at a time.

    UnknownBatch: the batch has gone meanwhile.
    """
    block = bytearray()
    for start in range(0, total, _AT_ONCE):
        # A page of the ledger's is a multiple of it.
        for item in backend.reader.items(batch_id, start, min(start + _AT_ONCE, total)):
            if item.status.ended and openai_lines.is_error(item) is (kind == "error"):
                block += line(batch_id, item)
        if len(block) >= _BLOCK:
            yield bytes(block)
            crash_point("content-half")
            block.clear()
    backend.reader.status(batch_id)
    if block:
        yield bytes(block)


def size_of(backend: Backend, batch_id: str, total: int, kind: Kind) -> int:
    """Return the bytes of the output or error file as it is now."""
    return sum(map(len, lines(backend, batch_id, total, kind)))


assert PAGE_SIZE % _AT_ONCE == 0  # noqa: S101
