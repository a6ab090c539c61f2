"""The stored form of texts in the ledger: long texts are compressed.

Level 1 halves texts of a kilobyte in 20 us, and brings longer ones down to 0.4; higher levels gain
a twentieth more for half as much time again, and below a kilobyte there is little to gain
(docs/performance.md has the figures). A packed text begins with a byte that never begins JSON.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

#: UTF-8 bytes from which on a text is compressed.
COMPRESSED_FROM: Final = 1024

_LEVEL: Final = 1
_MARK: Final = "\x01"
_HEAD: Final = "#"


def pack(text: str) -> str | bytes:
    """Return the JSON text as it is stored."""
    if len(text) < COMPRESSED_FROM:
        return text
    return _MARK.encode() + zlib.compress(text.encode(), _LEVEL)


def unpack(stored: str) -> str:
    """Return the JSON text of what was stored; the connection decodes with `surrogateescape`."""
    if not stored.startswith(_MARK):
        return stored
    return zlib.decompress(stored[1:].encode(errors="surrogateescape")).decode()


def with_head(head: Mapping[str, Any], text: str) -> str:
    """Return the JSON text behind a line that tells about it; without that if there is nothing.

    No JSON begins as that line does. `head` holds JSON values.
    """
    if not head:
        return text
    return f"{_HEAD}{json.dumps(head, separators=(',', ':'))}\n{text}"


def split_head(text: str) -> tuple[dict[str, Any], str]:
    """Return what `with_head` was given."""
    if not text.startswith(_HEAD):
        return {}, text
    head, _, body = text.partition("\n")
    return json.loads(head[1:]), body


def pack_outcome(head: str, output: str) -> str | bytes:
    """Return an outcome as it is stored: a JSON object, or one and a packed output behind it.

    `head` is a JSON object without `output`, which is JSON text.
    """
    packed = pack(output)
    if isinstance(packed, bytes):
        # JSON as we write it has no line break, so that the first one ends the head.
        return head.encode() + b"\n" + packed
    return f'{head[:-1]},"output":{packed}}}'


def unpack_outcome(stored: str) -> str:
    """Return an outcome as one JSON object."""
    head, line_break, packed = stored.partition("\n")
    return f'{head[:-1]},"output":{unpack(packed)}}}' if line_break else head
