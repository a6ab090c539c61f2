"""Formats of costs, tokens and estimates for people."""

from collections.abc import Sequence

from batchord.chains import Usage
from batchord.ledger.models import BatchRecord, Item
from batchord.producer.estimate import Estimate


def spent(record: BatchRecord) -> list[str]:
    """Say tokens and cost, each with the budget for it; nothing where no call reported any."""
    usage, budget = record.usage, record.budget
    parts = []
    tokens = None if usage is None else usage.total_tokens
    limit = None if budget is None else budget.tokens
    if tokens is not None or limit is not None:
        of = "" if limit is None else f" of {limit:,}"
        split = (
            ""
            if usage is None or tokens is None
            else f" ({usage.input_tokens or 0:,} in, {usage.output_tokens or 0:,} out)"
        )
        parts.append(f"{tokens or 0:,}{of} tokens{split}")
    if cost(record) or (budget is not None and budget.usd is not None):
        parts.append(_cost_of_budget(record))
    return parts


def spent_briefly(record: BatchRecord) -> str:
    """As `spent`, for a line that is short of room."""
    usage, budget = record.usage, record.budget
    tokens = None if usage is None else usage.total_tokens
    if not cost(record) and budget is None:
        return ""
    limit = None if budget is None else budget.tokens
    of = "" if limit is None else f" of {short(limit)}"
    return f"{short(tokens or 0)}{of} tokens, {_cost_of_budget(record)}"


def cost(record: BatchRecord) -> str:
    """Say the cost; empty where no call reported what it used."""
    usage = record.usage
    if usage is None or (usage.total_tokens is None and usage.cost_nanos is None):
        return ""
    return "unknown" if usage.cost_usd is None else dollars(usage.cost_usd)


def _cost_of_budget(record: BatchRecord) -> str:
    known = cost(record)
    limit = None if record.budget is None else record.budget.usd
    of = "" if limit is None else f" of {dollars(limit)}"
    return f"cost unknown{of}" if known == "unknown" else f"{known or '$0'}{of}"


def dollars(usd: float) -> str:
    """Format a sum in cents; below a cent, with the digits that it needs."""
    if usd >= 1:
        return f"${usd:,.2f}"
    if usd >= 1e-4:
        return f"${usd:.3g}"
    return "$" + f"{usd:.9f}".rstrip("0").rstrip(".")


def short(count: int) -> str:
    """Format a count in three digits and a letter."""
    for letter, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def whole(sample: Sequence[Item], total: int) -> str:
    """Say what `total` rows would use, by what those of the sample have used."""
    used = [item.usage for item in sample if item.usage is not None and not item.cached]
    rows = f"All {total:,} rows"
    if not used:
        return f"{rows}: unknown, as no answer of the sample was new, or none says what it used"
    one, times = sum(used, Usage()), total / len(used)
    parts = [
        f"about {round(count * times):,} tokens {way}"
        for count, way in ((one.input_tokens, "in"), (one.output_tokens, "out"))
        if count is not None
    ]
    price = "cost unknown without prices (BATCHORD_PRICES)"
    if one.cost_usd is not None:
        price = f"about {dollars(one.cost_usd * times)}"
    return f"{rows}: {', '.join([*parts, price])} (by {len(used)} rows of the sample)"


def forecast(found: Estimate) -> str:
    """Say an estimate, and what it stands on."""
    parts = [f"{found.items:,} items"]
    if found.input_tokens is not None:
        parts.append(f"about {found.input_tokens:,} tokens in")
    if found.output_tokens is not None:
        parts.append(f"about {found.output_tokens:,} out")
    parts.append("cost unknown" if found.cost_usd is None else f"about {dollars(found.cost_usd)}")
    if found.based_on == "batches":
        many = "batch" if found.batches == 1 else "batches"
        why = f"by what {found.batches} completed {many} of this chain used per item"
    else:
        why = "by the size of the inputs alone: no batch of this chain has completed yet"
    return f"{', '.join(parts)} ({why})"
