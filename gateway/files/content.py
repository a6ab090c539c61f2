"""`GET /v1/files/{id}/content`: streamed, whole or a range of it."""

from collections.abc import Iterable, Iterator
from typing import IO, Final

from starlette.responses import Response, StreamingResponse

from batchord.gateway.calls import Call
from batchord.gateway.errors import ApiError, not_found
from batchord.gateway.files import views
from batchord.gateway.files.lines import lines
from batchord.gateway.files.ranges import Part, Unsatisfiable, part_of

_BLOCK: Final = 2**18
_TYPE: Final = "application/jsonl"


def content(call: Call) -> Response:
    """Return the bytes of a tenant's file."""
    file_id = call.path["id"]
    file = call.backend.files.get(call.tenant.name, file_id)
    if file is not None:
        try:
            opened = call.backend.bytes.open(file_id)
        except FileNotFoundError:
            raise not_found("file", file_id) from None
        part = _part(call, file.bytes)
        return _answer(_read(opened, part), file.bytes, part)
    view = views.view(call, file_id)
    if view is None:
        raise not_found("file", file_id)
    record = view.record
    said = lines(call.backend, record.id, record.request_counts.total, view.kind)
    if not view.is_final:
        return _answer(said, None, None)  # it grows: what a range is of is not known
    size = views.size(call, view)
    part = _part(call, size)
    return _answer(said if part is None else _cut(said, part), size, part)


def _part(call: Call, size: int) -> Part | None:
    try:
        return part_of(call.headers.get("range"), size)
    except Unsatisfiable:
        raise ApiError(416, f"The file has {size:,} bytes: the range is behind its end") from None


def _answer(said: Iterable[bytes], size: int | None, part: Part | None) -> Response:
    headers = {}
    if size is not None:
        headers["accept-ranges"] = "bytes"
        headers["content-length"] = str(size if part is None else part.stop - part.start)
    if part is not None:
        headers["content-range"] = part.header
    return StreamingResponse(said, 200 if part is None else 206, headers, media_type=_TYPE)


def _read(file: IO[bytes], part: Part | None) -> Iterator[bytes]:
    with file:
        left: float = float("inf")
        if part is not None:
            file.seek(part.start)
            left = part.stop - part.start
        while left > 0 and (block := file.read(int(min(_BLOCK, left)))):
            left -= len(block)
            yield block


def _cut(said: Iterable[bytes], part: Part) -> Iterator[bytes]:
    place = 0
    for block in said:
        start, stop = max(part.start - place, 0), part.stop - place
        place += len(block)
        if stop <= 0:
            return
        if kept := block[start:stop]:
            yield kept
