"""The vectors in the body of an answer to `/v1/embeddings`, each for its text."""

import base64
import binascii
import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

from batchord.chains.errors import ChainError
from batchord.chains.openai import client

Vector = list[float]

#: Characters that an error keeps of what stands in the place of a vector.
_MAX_KEPT: Final = 500
_NUMBERS: Final = frozenset({float, int})


class UnsoundIndex(ChainError):
    """No vector of an answer can be told to belong to a text, whatever the texts are."""

    def __init__(self) -> None:
        super().__init__(
            "the provider gave vectors whose index does not say which text they belong to",
            code="invalid_output",
        )


def vectors_of(body: Any, texts: int) -> list[Vector | ChainError]:
    """Return the vector of each of the `texts` texts in order, or why it has none.

    The entries of `data` are placed by `index` if these are a permutation, and in the order of
    arrival if none has an index or all have the same.

    Raises:
        UnsoundIndex: the indexes contradict each other.
        RetryLater: `invalid_output`, the body is no answer.
        ChainError: `invalid_output`, it has more or fewer vectors.
    """
    data = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(data, list):
        raise client.no_answer(body)
    if len(data) != texts:
        raise ChainError(
            f"the provider gave {len(data)} vectors for {texts} texts", code="invalid_output"
        )
    entries = [entry if isinstance(entry, Mapping) else {} for entry in data]
    places = _places([entry.get("index") for entry in entries])
    found: list[Vector | ChainError] = [_NO_VECTOR] * texts
    for place, entry in zip(places, entries, strict=True):
        found[place] = _vector(entry.get("embedding"))
    return found


def of_length(found: "Vector | ChainError", expected: int | None) -> "Vector | ChainError":
    """Return what was found, or an error if it is a vector of another length.

    `expected`: numbers in each vector of this model; None if that is unknown, which no vector fits.
    """
    if isinstance(found, ChainError) or len(found) == expected:
        return found
    known = "of different lengths" if expected is None else f"of {expected} numbers elsewhere"
    return _invalid(f"has {len(found)} numbers, and vectors are {known}")


def _places(indexes: Sequence[Any]) -> Sequence[int]:
    arrival = range(len(indexes))
    # By `==` alone, False and 0.0 would pass as 0.
    if all(type(index) is int for index in indexes) and sorted(indexes) == list(arrival):
        return indexes
    if all(index == indexes[0] for index in indexes):
        return arrival
    raise UnsoundIndex


def _vector(value: Any) -> "Vector | ChainError":
    try:
        numbers = _decoded(value) if isinstance(value, str) else value
        if not isinstance(numbers, list):
            return _invalid("is no list of numbers", value)
        if not numbers:
            return _invalid("is empty", value)
        if not _NUMBERS.issuperset(map(type, numbers)):
            return _invalid("holds what is no number", value)
        vector = list(map(float, numbers))
    except (binascii.Error, ValueError, OverflowError):
        return _invalid("is not base64 of 32-bit numbers, or holds too large ones", value)
    return vector if all(map(math.isfinite, vector)) else _invalid("is not finite", value)


def _decoded(text: str) -> Vector:
    """Decode the API's numbers: little-endian float32 in base64."""
    numbers = array("f", base64.b64decode(text, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _invalid(why: str, value: Any = None) -> ChainError:
    kept = repr(value[:9] if isinstance(value, list | str) else value)[:_MAX_KEPT]
    return ChainError(
        f"the provider's vector {why}",
        code="invalid_output",
        raw=None if value is None else kept,
    )


_NO_VECTOR: Final = _invalid("is missing")
