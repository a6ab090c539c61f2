"""Estimates of a batch's usage, before it is submitted."""

from collections.abc import Iterable
from typing import Any, Final, Literal

from batchord.chains import ChainError, Usage, pricing
from batchord.chains.specs.chain_spec import ChainSpec
from batchord.ledger.core.compression import split_head
from batchord.ledger.core.json_values import decode
from batchord.ledger.errors import LedgerUnavailable
from batchord.ledger.models import ChainUse, Frozen
from batchord.ledger.settings import NoServer, Settings
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.producer.inputs import blocks, check_fields, check_for, rows_or_values

#: Characters of an input that make a token, where nothing better is known.
CHARACTERS_PER_TOKEN: Final = 4


class Estimate(Frozen):
    """The estimated usage of a batch; None for an unknown value."""

    items: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    #: US dollars, by the prices that the earlier batches had.
    cost_usd: float | None = None
    #: `batches`: what completed batches of the chain have used per item. `characters`: none has
    #: completed; four characters are a token, those of an input, or of what a chain that travels as
    #: data makes of it.
    based_on: Literal["batches", "characters"]
    #: How many batches that were.
    batches: int = 0


def estimate(
    reader: BatchReader, settings: Settings, chain: str | ChainSpec, inputs: Iterable[Any]
) -> Estimate:
    """Count the inputs, checked as they are at a submit, and scale what is known to them.

    For a chain that travels as data no ledger is needed.
    """
    items = characters = 0
    for block in blocks(rows_or_values(inputs), None, check_for(chain, reader), settings):
        if items == 0:
            check_fields(chain, block)
        items += len(block.inputs)
        characters += sum(_characters(chain, text) for text in block.inputs)
    used = _used(reader, chain)
    if used is not None:
        return _scaled(used, items)
    tokens = -(-characters // CHARACTERS_PER_TOKEN)
    return Estimate(
        items=items,
        input_tokens=tokens,
        cost_usd=_cost(chain, tokens, settings),
        based_on="characters",
    )


def _used(reader: BatchReader, chain: str | ChainSpec) -> ChainUse | None:
    if isinstance(chain, str):
        return reader.used(chain)
    try:
        return reader.used(chain.name)
    except (LedgerUnavailable, NoServer):
        return None


def _cost(chain: str | ChainSpec, tokens: int, settings: Settings) -> float | None:
    """Return the dollars that vectors of `tokens` tokens cost; what a model writes is unknown."""
    if isinstance(chain, str) or chain.embed is None:
        return None
    price = pricing.price_in(pricing.load(settings.prices), chain.model)
    nanos = None if price is None else price.of(Usage(input_tokens=tokens))
    return None if nanos is None else nanos / 1e9


def _scaled(used: ChainUse, items: int) -> Estimate:
    cost = None
    if used.priced_items:
        cost = round(used.cost_nanos * items / used.priced_items) / 1e9
    return Estimate(
        items=items,
        # A chain without output tokens has none to tell: embeddings.
        input_tokens=_share(used.input_tokens, used.items, items),
        output_tokens=_share(used.output_tokens, used.items, items),
        cost_usd=cost,
        based_on="batches",
        batches=used.batches,
    )


def _share(total: int, of: int, items: int) -> int | None:
    return round(total * items / of) if total else None


def _characters(chain: str | ChainSpec, text: str) -> int:
    """Count the characters of an input; of a chain that is data, those that the model is given."""
    if isinstance(chain, ChainSpec):
        try:
            return len(chain.rendered(decode(split_head(text)[1])))
        except ChainError:
            return 0  # it lacks a field: the item will fail, and use nothing
    return len(text) - 2 if text.startswith('"') else len(text)
