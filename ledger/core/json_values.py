"""Values on the wire: JSON only, checked before Celery or Redis meets them.

Celery and kombu pass NaN and lone surrogates silently and crash on deep nesting, so values are
encoded here, once, and travel as opaque strings from then on.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from batchord.ledger.errors import ValueRejected

#: Nesting that every JSON reader on the way is known to survive (500 crashes a prefork worker).
MAX_DEPTH = 100

#: Kept: `json.dumps` makes one for each call that is not all defaults.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def encode(value: object, *, max_bytes: int, setting: str) -> str:
    """Return `value` as JSON text that decodes to an equal value, or refuse it.

    Accepts None, bool, int, finite float, str, list, tuple (an array), mappings with str keys,
    enums of those, and pydantic models (as `model_dump(mode="json")`). What else pydantic knows as
    JSON is written as it does that: dataclasses (objects), sets (arrays, sorted), datetime, date,
    UUID, Decimal, Path and the like (text); numpy's arrays and scalars as their `tolist()`. Of
    these `decode` returns the JSON. `max_bytes` bounds the UTF-8 text; `setting` is the environment
    variable that the error names.

    Raises:
        ValueRejected: with code `not_json`, `too_deep` or `too_large`. The message names the
            place (`$.a[3]`) and the type, never the value.
    """
    try:
        if not isinstance(value, (int, str)) or isinstance(value, Enum):
            value = _plain(value, "$", 0)
        text = _ENCODER.encode(value)
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise ValueRejected(
            "not JSON: the text holds a lone surrogate; decode it with errors='replace'",
            code="not_json",
        ) from None
    except ValueError as error:
        # NaN, infinities, and integers beyond Python's 4,300 digits.
        raise ValueRejected(f"not JSON: {error}", code="not_json") from None
    if size > max_bytes:
        raise ValueRejected(
            f"too large: {size:,} bytes as JSON, the limit is {max_bytes:,}; "
            f"send a reference instead, or raise {setting}",
            code="too_large",
        )
    return text


def decode(text: str | bytes) -> Any:
    """Return the value that `encode` was given."""
    return json.loads(text)


def _plain(value: object, place: str, depth: int) -> Any:
    """Copy `value` into plain JSON types, so that nothing is converted behind the caller's back."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth >= MAX_DEPTH:
        raise ValueRejected(
            f"too deep: more than {MAX_DEPTH} levels of nesting at {place[:80]}; flatten it",
            code="too_deep",
        )
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"), place, depth)
    if isinstance(value, (list, tuple)):
        return [_plain(each, f"{place}[{i}]", depth + 1) for i, each in enumerate(value)]
    if isinstance(value, Mapping):
        return {
            _key(key, place): _plain(each, f"{place}.{key}", depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, (set, frozenset)):
        members = [_plain(each, f"{place}[]", depth + 1) for each in value]
        # The same in each process: its text names the output in a cache.
        return sorted(members, key=json.dumps)
    return _plain(_known_as(value, place), place, depth + 1)


def _known_as(value: Any, place: str) -> Any:
    """Return what pydantic or numpy make of the value on its way to JSON."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return value.tolist()
    if type(value).__module__ != "builtins" and not isinstance(value, (type, Iterator)):
        if dataclasses.is_dataclass(value) and not hasattr(value, "__pydantic_serializer__"):
            return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        try:
            return to_jsonable_python(value)
        except ValueError:
            pass
    # Bytes are no text, and an iterator may have no end.
    raise ValueRejected(
        f"not JSON: {type(value).__qualname__} at {place[:80]}; "
        "pass JSON types, a dataclass, or a pydantic model",
        code="not_json",
    )


def _key(key: object, place: str) -> str:
    if isinstance(key, str):
        return key
    # json.dumps would turn 1 into "1" and give another value back.
    raise ValueRejected(
        f"not JSON: a key of type {type(key).__qualname__} at {place[:80]}; keys must be str",
        code="not_json",
    )
