"""Costs of calls, by a price table of the user's own.

No table is built in: prices change, and a wrong figure is worse than no figure.
"""

from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final

import pydantic

from batchord.chains.errors import BadPrices
from batchord.chains.usage import Usage

_EXAMPLE: Final = '{"some-model": {"input": 2.5, "cached_input": 1.25, "output": 10}}'

#: US dollars per million tokens. Nothing costs so much as the bound: it is a slip of the pen.
Usd = Annotated[Decimal, pydantic.Field(ge=0, le=10_000)]


class Price(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The prices of a model, in US dollars per million tokens."""

    input: Usd
    #: None: as `input`.
    cached_input: Usd | None = None
    #: None: unknown, or it gives no tokens (embeddings).
    output: Usd | None = None
    #: What part of all this a request in a provider's batch costs: 0.5 is half. None: unknown.
    batch: Annotated[Decimal, pydantic.Field(ge=0, le=1)] | None = None

    def of(self, used: Usage, *, batch: bool = False) -> int | None:
        """Billionths of a dollar for these tokens, in a provider's batch or by themselves.

        None if that is unknown.
        """
        part = self.batch if batch else Decimal(1)
        if part is None:
            return None
        if used.input_tokens is None or (used.output_tokens and self.output is None):
            return None
        cached = min(used.cached_input_tokens or 0, used.input_tokens)
        dollars_per_million = (
            (used.input_tokens - cached) * self.input
            + cached * (self.input if self.cached_input is None else self.cached_input)
            + (used.output_tokens or 0) * (self.output or 0)
        )
        return int((dollars_per_million * part * 1000).to_integral_value(ROUND_HALF_UP))


Prices = dict[str, Price]
_TABLE: Final = pydantic.TypeAdapter(Prices)

_prices: Prices = {}


def load(path: Path | None) -> Prices:
    """Read a price table from a JSON file; without a path it is empty.

    Raises:
        BadPrices: the file cannot be read or is invalid; the message says what to change.
    """
    if path is None:
        return {}
    try:
        return _TABLE.validate_json(path.read_bytes())
    except OSError as error:
        raise BadPrices(
            f"BATCHORD_PRICES: cannot read {str(path)!r} ({error.strerror}): name a JSON file "
            f"such as {_EXAMPLE}, or unset it"
        ) from None
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, found["loc"]))
        raise BadPrices(
            f"BATCHORD_PRICES: {str(path)!r}{f' at {place}' if place else ''}: {found['msg']}; "
            f"write US dollars per million tokens, such as {_EXAMPLE}"
        ) from None


def use(prices: Prices) -> None:
    """Price what this process calls from now on by this table."""
    global _prices
    _prices = prices
    price_of.cache_clear()


@lru_cache(maxsize=1_000)
def price_of(model: str) -> Price | None:
    """Return the price of a model in the table that this process uses."""
    return price_in(_prices, model)


def price_in(prices: Prices, model: str) -> Price | None:
    """Return the price of a model: under its name, else under its longest prefix before a dash.

    So `some-model-2026-01-01` costs what `some-model` does, unless it is listed itself.
    """
    if model in prices:
        return prices[model]
    begins = [name for name in prices if model.startswith(f"{name}-")]
    return prices[max(begins, key=len)] if begins else None


def priced(used: Usage, model: str, *, batch: bool = False) -> Usage:
    """Return the usage of one call with its cost, or counted as a request of unknown price.

    A call whose answer tells no tokens is counted as unmetered, too. `batch`: it is one of a
    provider's batch.
    """
    if used.total_tokens is None:
        used = used.model_copy(update={"unmetered_requests": 1})
    price = price_of(model)
    cost = None if price is None else price.of(used, batch=batch)
    if cost is None:
        return used.model_copy(update={"unpriced_requests": 1})
    return used.model_copy(update={"cost_nanos": cost})
