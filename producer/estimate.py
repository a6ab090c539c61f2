"""Estimates of a batch's usage, before it is submitted."""

from collections.abc import Iterable
from typing import Any, Final, Literal

from batchord.chains import ChainError, Usage, pricing
from batchord.chains.specs.chain_spec import ChainSpec
from batchord.ledger.core.compression import split_head
from batchord.ledger.core.json_values import decode
from batchord.ledger.errors import LedgerUnavailable
from batchord.ledger.models import ChainUse, Frozen
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.producer.inputs import (
    anything,
    blocks,
    check_fields,
    check_for,
    rows_or_values,
)

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
    """Count the inputs, checked as they are at a submit, and scale what is known to them."""
    if isinstance(chain, ChainSpec):
        return estimate_spec(settings, chain, inputs, _used(reader, chain))
    items = characters = 0
    for block in blocks(rows_or_values(inputs), None, check_for(chain, reader), settings):
        items += len(block.inputs)
        characters += sum(map(_characters, block.inputs))
    used = reader.used(chain)
    return _by_characters(items, characters) if used is None else _scaled(used, items)


def estimate_spec(
    settings: Settings, spec: ChainSpec, inputs: Iterable[Any], used: ChainUse | None = None
) -> Estimate:
    """Count what the chain's prompt makes of the inputs, and scale what is known; asks no ledger.

    `used`: the usage of its completed batches; None: unknown.
    """
    items = characters = 0
    for block in blocks(rows_or_values(inputs), None, anything, settings):
        if items == 0:
            check_fields(spec, block)
        items += len(block.inputs)
        characters += sum(_rendered(spec, text) for text in block.inputs)
    if used is not None:
        return _scaled(used, items)
    found = _by_characters(items, characters)
    cost = None if spec.embed is None else _cost(spec.model, found.input_tokens, settings)
    return found.model_copy(update={"cost_usd": cost})


def _used(reader: BatchReader, spec: ChainSpec) -> ChainUse | None:
    try:
        return reader.used(spec.name)
    except LedgerUnavailable:
        return None


def _cost(model: str, tokens: int | None, settings: Settings) -> float | None:
    """Return the dollars that vectors of `tokens` tokens cost; what a model writes is unknown."""
    price = pricing.price_in(pricing.load(settings.prices), model)
    nanos = None if price is None else price.of(Usage(input_tokens=tokens))
    return None if nanos is None else nanos / 1e9


def _by_characters(items: int, characters: int) -> Estimate:
    tokens = -(-characters // CHARACTERS_PER_TOKEN)
    return Estimate(items=items, input_tokens=tokens, based_on="characters")


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


def _characters(text: str) -> int:
    return len(text) - 2 if text.startswith('"') else len(text)


def _rendered(spec: ChainSpec, text: str) -> int:
    """Count the characters that the model is given for an input, which is JSON text."""
    try:
        return len(spec.rendered(decode(split_head(text)[1])))
    except ChainError:
        return 0  # it lacks a field: the item will fail, and use nothing
