"""Payloads that are too large for the ledger: an input says where in a file they are."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pydantic

from batchord.chains.errors import OperatorNeeded

logger = logging.getLogger(__name__)

#: Reads bytes of an uploaded file: its id, where they begin, and their number.
Reader = Callable[[str, int, int], bytes]

_reader: Reader | None = None


class StoredLine(pydantic.BaseModel, frozen=True):
    """A line of an uploaded file, in bytes."""

    file: str
    offset: int = pydantic.Field(ge=0)
    length: int = pydantic.Field(ge=1)


def install(reader: Reader | None) -> None:
    """Have this process read payloads so; a worker does it before its first item."""
    global _reader
    _reader = reader


async def stored_body(line: StoredLine) -> dict[str, Any]:
    """Return the body of the request in a line, read beside the event loop.

    Raises:
        OperatorNeeded: `file_unreadable`, this worker cannot read the file.
    """
    return await asyncio.to_thread(_body, line)


def _body(line: StoredLine) -> dict[str, Any]:
    try:
        if _reader is None:
            raise LookupError("no file store is installed in this process")
        text = _reader(line.file, line.offset, line.length)
        body: dict[str, Any] = json.loads(text)["body"]
        return body
    except Exception as error:  # noqa: BLE001
        # Any client of an object store has errors of its own.
        logger.warning("payload not read file=%s: %r", line.file, error)
        raise OperatorNeeded(
            f"the payload in {line.file} cannot be read ({type(error).__name__}): set "
            "BATCHORD_FILES where the workers are as where `batchord serve` is, and let them reach "
            "it",
            code="file_unreadable",
        ) from None
