"""Estimates of a batch's usage, before it is submitted."""

from collections.abc import Iterable
from typing import Any, Final, Literal

from batchord.ledger.models import ChainUse, Frozen
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.producer.inputs import blocks, check_for, rows_or_values

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
    #: completed; four characters of an input are a token, and what a prompt adds is not in it.
    based_on: Literal["batches", "characters"]
    #: How many batches that were.
    batches: int = 0


def estimate(
    reader: BatchReader, settings: Settings, chain: str, inputs: Iterable[Any]
) -> Estimate:
    """Count the inputs, checked as they are at a submit, and scale what is known to them."""
    items = characters = 0
    for block in blocks(rows_or_values(inputs), None, check_for(chain, reader), settings):
        items += len(block.inputs)
        characters += sum(_characters(text) for text in block.inputs)
    used = reader.used(chain)
    if used is None:
        tokens = -(-characters // CHARACTERS_PER_TOKEN)
        return Estimate(items=items, input_tokens=tokens, based_on="characters")
    return _scaled(used, items)


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
