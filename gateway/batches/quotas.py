"""Bounds of a tenant, at a time and in a day: 429 beyond them, before anything is written."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from batchord.gateway.batches.lookup import Found, find_all
from batchord.gateway.calls import Call
from batchord.gateway.errors import ApiError, invalid
from batchord.ledger.storage.api_batches import TooMany
from batchord.ledger.storage.day_budgets import DAY

#: Seconds after which a caller may look again whether a batch of its own has ended.
_LOOK_AGAIN: Final = 30


def admit(call: Call, options: Mapping[str, Any]) -> None:
    """Raise ApiError if there may be no such batch now.

    400: its priority is better than the tenant's; 429: the day's budget is used.
    """
    tenant = call.tenant
    if options["priority"] < tenant.priority:
        raise invalid(f"priority: this key's batches have {tenant.priority} at best", "priority")
    if tenant.max_batches is not None or tenant.max_items is not None:
        _forget_ended(call)
    check_day(call)


def check_day(call: Call) -> None:
    """Raise ApiError (429) if the tenant's batches have cost today what they may."""
    left = call.backend.day_budgets.left(call.tenant.name)
    if left is not None and left <= 0:
        raise _quota(call)


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


def _quota(call: Call) -> ApiError:
    now = call.backend.store.now()
    return ApiError(
        429,
        f"You exceeded your current quota: ${call.tenant.budget_usd_per_day:g} a day (UTC)",
        type_="insufficient_quota",
        code="insufficient_quota",
        retry_after=DAY - now % DAY,
        retry=False,
    )
