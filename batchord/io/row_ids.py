"""Names of rows: the cells of a column become custom_ids."""

import hashlib
from typing import Any

from batchord.chains.extras import library
from batchord.io.input_file import InputFile
from batchord.io.json_lines import Reading
from batchord.ledger.errors import SubmitRefused
from batchord.producer.inputs import MAX_CUSTOM_ID, is_text

#: Bytes of the digest of an id. Of a million rows these are 16 MB, and no id is held.
_DIGEST = 16


def named_by(column: str, file: InputFile) -> Reading:
    """Return what gives a row and its id, which is the cell in this column.

    Raises, as it reads:
        SubmitRefused: the row has no such column, or no text and no whole number in it.
    """

    def reading(number: int, value: Any) -> tuple[Any, str]:
        return value, _id_of(column, f"{file.place} {number}", value)

    return reading


def check_ids(column: str, file: InputFile) -> None:
    """Read the file, and check that each row has an id of its own in this column.

    Raises:
        SubmitRefused: a row has no id, or that of an earlier row; the message names both lines.
    """
    np = library("numpy", "an id column")
    file.keep()
    digests = bytearray()
    for number, value in file:
        digests += _digest(_id_of(column, f"{file.place} {number}", value))
    found = np.sort(np.frombuffer(bytes(digests), dtype=f"S{_DIGEST}"))
    repeated = found[1:][found[1:] == found[:-1]]
    if len(repeated):
        _refuse_repeated(column, file, {bytes(each).ljust(_DIGEST, b"\0") for each in repeated})


def _refuse_repeated(column: str, file: InputFile, repeated: set[bytes]) -> None:
    lines: dict[bytes, int] = {}
    for number, value in file:
        name = _id_of(column, f"{file.place} {number}", value)
        first = lines.setdefault(_digest(name), number)
        if first != number and _digest(name) in repeated:
            raise SubmitRefused(
                f"{file.place} {number}: the id {name[:80]!r} in column {column!r} is that of "
                f"{file.place} {first} already: each row needs one of its own"
            )
        if _digest(name) not in repeated:
            del lines[_digest(name)]


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=_DIGEST).digest()


def _id_of(column: str, where: str, value: Any) -> str:
    if not isinstance(value, dict) or column not in value:
        has = ", ".join(map(str, value)) if isinstance(value, dict) else "no columns"
        raise SubmitRefused(f"{where} has no column {column!r} for --id (it has: {has[:200]})")
    name = value[column]
    if name is None or name == "":
        raise SubmitRefused(
            f"{where}: the column {column!r} is empty: --id needs a name in each row"
        )
    if type(name) is int:
        name = str(name)
    if not is_text(name, MAX_CUSTOM_ID):
        raise SubmitRefused(
            f"{where}: the column {column!r} has no text of 1 to {MAX_CUSTOM_ID} characters and no "
            "whole number: --id needs one"
        )
    return str(name)
