"""Lists in OpenAI's form: `{"object": "list", "data", "first_id", "last_id", "has_more"}`."""

from collections.abc import Mapping, Sequence
from typing import Any

from batchord.gateway.errors import invalid


def limit_of(query: Mapping[str, str], *, default: int, most: int) -> int:
    """Return how many entries a page has."""
    text = query.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= most):
        raise invalid(f"limit must be a whole number from 1 to {most:,}", "limit")
    return int(text)


def behind(ids: Sequence[str], query: Mapping[str, str]) -> int:
    """Return the place behind the entry that `after` names; 0 without one."""
    after = query.get("after")
    if after is None:
        return 0
    if after not in ids:
        raise invalid(f"after: no entry has the id {after[:80]!r}", "after")
    return ids.index(after) + 1


def page(data: Sequence[Mapping[str, Any]], *, more: bool) -> dict[str, Any]:
    """Return a page of objects; `more`: others follow."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }
