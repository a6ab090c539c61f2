"""Upload of a file: streamed into the file store, and there as a whole or not at all."""

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from batchord.gateway.calls import Call, call_of
from batchord.gateway.errors import ApiError, invalid
from batchord.gateway.files.multipart import FileForm
from batchord.gateway.files.objects import file_object
from batchord.gateway.lifetimes import ttl_of
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.storage.api_files import ApiFile
from batchord.ledger.storage.file_store import NewFile

#: Bytes that are written to the store at a time.
_BLOCK: Final = 2**20
#: Characters of a file's name that are kept.
_MOST_NAME: Final = 255

_PURPOSE: Final = "batch"


async def upload(request: Request) -> Response:
    """Answer `POST /v1/files`."""
    call = call_of(request)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(
            415, "Content-Encoding is not supported: upload the file as it is", param="file"
        )
    form = FileForm(request.headers.get("content-type", ""))
    spool = _Spool(call)
    try:
        await _receive(request, form, spool)
        filename, ttl = _checked(form, call)
        file = await run_in_threadpool(spool.commit, filename, ttl)
    except BaseException:
        # Also if the caller has gone, or the server ends.
        await asyncio.shield(run_in_threadpool(spool.discard))
        raise
    return JSONResponse(file_object(file))


async def _receive(request: Request, form: FileForm, spool: "_Spool") -> None:
    try:
        async for chunk in request.stream():
            if spool.too_large:
                spool.size += len(chunk)  # read to its end, as a caller hears no answer before
                continue
            form.feed(chunk)
            if len(form.data) >= _BLOCK:
                await run_in_threadpool(spool.write, form.take())
    except ClientDisconnect:
        raise invalid("The request ended before its body", "file") from None
    if spool.too_large:
        raise spool.refusal()
    if not form.ended:
        raise invalid("The multipart body ends before its last boundary", "file")
    await run_in_threadpool(spool.write, form.take())
    if spool.too_large:
        raise spool.refusal()


def _checked(form: FileForm, call: Call) -> tuple[str, int]:
    """Return the file's name and its seconds to live."""
    if form.filename is None:
        raise invalid("Missing required parameter: 'file'", "file", "missing_required_parameter")
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise invalid(
            "Missing required parameter: 'purpose'", "purpose", "missing_required_parameter"
        )
    if purpose != _PURPOSE:
        raise invalid(
            f"{purpose[:80]!r} is not one of ['{_PURPOSE}'] - 'purpose'", "purpose", "invalid_value"
        )
    name = PurePosixPath(form.filename.replace("\\", "/")).name[:_MOST_NAME] or "upload"
    if PurePosixPath(name).suffix.lower() not in ("", ".jsonl"):
        raise invalid(
            "Invalid file format for Batch API. Must be .jsonl", "file", "invalid_file_format"
        )
    return name, _ttl(form.fields, call)


def _ttl(fields: Mapping[str, str], call: Call) -> int:
    found: dict[str, Any] = {
        name: value
        for name in ("anchor", "seconds")
        if (value := fields.get(f"expires_after[{name}]")) is not None
    }
    seconds = found.get("seconds")
    if seconds is not None and seconds.isascii() and seconds.isdecimal():
        found["seconds"] = int(seconds[:10])
    return ttl_of(found or None, "expires_after") or call.backend.settings.file_ttl


class _Spool:
    """The new file in the store; begun with its first bytes. All methods block."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._backend = call.backend
        self._id = f"file-{secrets.token_hex(12)}"
        self._file: NewFile | None = None
        self.size = 0
        self._lines, self._in_line = 0, False

    @property
    def too_large(self) -> bool:
        return self.size > self._backend.settings.file_max_bytes

    def refusal(self) -> ApiError:
        most = self._backend.settings.file_max_bytes
        return ApiError(
            413,
            f"The file is larger than {most:,} bytes: split it",
            param="file",
            code="file_too_large",
        )

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.too_large:
            return
        if self._file is None:
            self._backend.files.reserve(self._id)
            self._file = self._backend.bytes.create(self._id)
        self._file.write(data)
        self._count(data)
        crash_point("upload-half")

    def commit(self, filename: str, ttl: int) -> ApiFile:
        assert self._file is not None  # noqa: S101  # `write` comes before
        self._file.commit()
        crash_point("upload-before-record")
        return self._backend.files.add(
            self._id,
            tenant=self._call.tenant.name,
            filename=filename,
            purpose=_PURPOSE,
            size=self.size,
            lines=self._lines + self._in_line,
            ttl=ttl,
        )

    def discard(self) -> None:
        if self._file is not None:
            self._file.discard()
            self._backend.files.deleted(self._id)

    def _count(self, data: bytes) -> None:
        first, *rest = data.split(b"\n")
        self._in_line = self._in_line or _is_said(first)
        if rest:
            self._lines += self._in_line + sum(map(_is_said, rest[:-1]))
            self._in_line = _is_said(rest[-1])


def _is_said(line: bytes) -> bool:
    return bool(line) and not line.isspace()
