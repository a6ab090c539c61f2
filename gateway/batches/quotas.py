"""Bounds of a tenant, at a time and in a day: 429 beyond them, before anything is written."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from batchord.gateway.batches.lookup import Found, find_all
from batchord.gateway.calls import Call
from batchord.gateway.errors import ApiError, invalid
from batchord.ledger.storage.api_batches import TooMany

_DAY: Final = 24 * 3600
#: Seconds after which a caller may look again whether a batch of its own has ended.
_LOOK_AGAIN: Final = 30


def admit(call: Call, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a new batch, its budget within what the day has left.

    Raises:
        ApiError: 400, its priority is better than the tenant's; 429, the day's budget is used.
    """
    tenant = call.tenant
    if options["priority"] < tenant.priority:
        raise invalid(f"priority: this key's batches have {tenant.priority} at best", "priority")
    if tenant.max_batches is not None or tenant.max_items is not None:
        _forget_ended(call)
    if tenant.budget_usd_per_day is None:
        return dict(options)
    left = tenant.budget_usd_per_day - _spent(call)
    if left <= 0:
        raise _quota(call)
    budget = dict(options.get("budget") or {})
    asked = budget.get("usd")
    budget["usd"] = left if asked is None else min(left, asked)
    return {**options, "budget": budget, "asked_usd": asked}


@contextmanager
def at_most(call: Call) -> Iterator[None]:
    """Answer 429 if the tenant has as many batches or requests as it may have at a time."""
    try:
        yield
    except TooMany as error:
        most = call.tenant.max_batches if error.what == "batches" else call.tenant.max_items
        what = "batches" if error.what == "batches" else "requests in batches"
        raise ApiError(
            429,
            f"This key may have {most:,} {what} at a time: wait until one has ended",
            type_="requests",
            code="rate_limit_exceeded",
            retry_after=_LOOK_AGAIN,
        ) from None


def _forget_ended(call: Call) -> None:
    batches = call.backend.batches
    ids = batches.live(call.tenant.name)
    known = zip(ids, find_all(call, ids), strict=True) if ids else ()
    if ended := [each for each, found in known if found is None or has_ended(found)]:
        batches.have_ended(call.tenant.name, ended)


def has_ended(found: Found) -> bool:
    """Whether a batch needs nothing of the fleet any more."""
    if found.record is not None:
        return found.record.status.ended
    return found.api.status in ("failed", "cancelled")


def _spent(call: Call) -> float:
    """Return the dollars that the tenant's batches of this day (UTC) have cost, or may yet.

    A batch that has not ended counts with the budget that its caller gave it, if that is more.
    """
    now = call.backend.store.now()
    ids = call.backend.batches.since(call.tenant.name, now - now % _DAY)
    spent = 0.0
    for found in find_all(call, ids) if ids else ():
        if found is None:
            continue
        usage = None if found.record is None else found.record.usage
        cost = (usage.cost_nanos or 0) / 1e9 if usage is not None else 0.0
        asked = found.api.options.get("asked_usd") or 0.0
        spent += cost if has_ended(found) else max(cost, asked)
    return spent


def _quota(call: Call) -> ApiError:
    now = time.time()
    return ApiError(
        429,
        f"You exceeded your current quota: ${call.tenant.budget_usd_per_day:g} a day (UTC)",
        type_="insufficient_quota",
        code="insufficient_quota",
        retry_after=_DAY - now % _DAY,
        retry=False,
    )
