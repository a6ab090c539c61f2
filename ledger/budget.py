"""The budget of a batch, at which it pauses."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from batchord.ledger.errors import SubmitRefused

#: Above these it is a slip of the pen; and sums in Lua are exact to 2**53.
_MOST_USD: Final = 1_000_000
_MOST_TOKENS: Final = 10**15


@dataclass(frozen=True, kw_only=True)
class Budget:
    """US dollars, or input and output tokens, or both: whichever is used up first.

    The batch pauses once that much is used; what runs then may end, and is paid for. Dollars need
    prices (BATCHORD_PRICES): the first call whose price is unknown pauses the batch.
    """

    usd: float | None = None
    tokens: int | None = None

    def check(self) -> None:
        """Raise SubmitRefused if the budget is invalid."""
        usd: Any = self.usd
        tokens: Any = self.tokens
        if usd is None and tokens is None:
            raise SubmitRefused("budget: give usd, tokens, or both")
        if usd is not None and (
            isinstance(usd, bool)
            or not isinstance(usd, (int, float, Decimal))
            or not 1e-9 <= usd <= _MOST_USD
        ):
            raise SubmitRefused(
                f"budget: usd is a number of dollars above 0, at most {_MOST_USD:,}"
            )
        if tokens is not None and (type(tokens) is not int or not 1 <= tokens <= _MOST_TOKENS):
            raise SubmitRefused(f"budget: tokens is an int of at least 1, at most {_MOST_TOKENS:,}")

    def fields(self) -> dict[str, str]:
        """Return the fields of the batch's `meta`."""
        found = {}
        if self.tokens is not None:
            found["budget_tokens"] = str(self.tokens)
        if self.usd is not None:
            found["budget_nanos"] = str(round(Decimal(str(self.usd)) * 10**9))
        return found


def budget_of(meta: Mapping[str, str]) -> Budget | None:
    """Return the budget that the batch's `meta` has."""
    tokens, nanos = meta.get("budget_tokens"), meta.get("budget_nanos")
    if tokens is None and nanos is None:
        return None
    return Budget(
        usd=None if nanos is None else int(nanos) / 1e9,
        tokens=None if tokens is None else int(tokens),
    )


def checked(budget: Any) -> Budget | None:
    """Return the budget, checked.

    Raises:
        SubmitRefused: it is not a budget, or is invalid.
    """
    if budget is None:
        return None
    if not isinstance(budget, Budget):
        raise SubmitRefused(
            f"budget: give Budget(usd=...) or Budget(tokens=...), not a {type(budget).__name__}"
        )
    budget.check()
    return budget
