"""Inputs on their way in: checked against the chain's type, encoded, in bounded blocks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from batchord.chains import ChainNotFound, InvalidInput, RegisteredChain, registered
from batchord.chains.langchain.objects import dump
from batchord.chains.specs.chain_spec import ChainSpec, registered_chain
from batchord.chains.steps.offline_call import why_not_offline
from batchord.chains.tables.extra import BadTable
from batchord.chains.tables.frames import table_rows
from batchord.ledger.core.compression import split_head, with_head
from batchord.ledger.core.json_values import decode, encode
from batchord.ledger.errors import SubmitRefused, ValueRejected
from batchord.ledger.models import ChainRecord
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.keys import PAGE_SIZE

#: A block is written when it holds BLOCK_BYTES, or fills its page.
BLOCK_BYTES = 4_000_000

#: Longest custom_id, in characters.
MAX_CUSTOM_ID = 512

#: Takes an input as JSON text, which is how the worker will see it.
Check = Callable[[str], object]


@dataclass(kw_only=True)
class Block:
    """Consecutive inputs of one page, encoded."""

    start: int
    inputs: list[str] = field(default_factory=list)
    custom_ids: list[str] | None = None
    size: int = 0

    @property
    def stop(self) -> int:
        return self.start + len(self.inputs)

    @property
    def full(self) -> bool:
        return self.size >= BLOCK_BYTES or self.stop % PAGE_SIZE == 0


def rows_or_values(inputs: Any) -> Iterable[Any]:
    """Return the rows of a table, as `table_rows` gives them; any other iterable as it is.

    Raises:
        SubmitRefused: it is a table that cannot be taken as it is.
    """
    try:
        rows = table_rows(inputs)
    except BadTable as error:
        raise SubmitRefused(str(error)) from None
    return cast(Iterable[Any], inputs) if rows is None else _refusing(rows)


def _refusing(rows: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from rows
    except BadTable as error:
        raise SubmitRefused(str(error)) from None


def known_here(chain: str | ChainSpec) -> RegisteredChain | None:
    """Return the chain if it is registered in this process, or travels as data; else None."""
    return registered_chain(chain) if isinstance(chain, ChainSpec) else registered().get(chain)


def check_for(chain: str | ChainSpec, reader: BatchReader | None) -> Check:
    """Return what checks an input against the chain's declared type.

    The chain registered in this process decides if there is one, else what the workers announced.
    Without a `reader` their announcements are not read, and anything is accepted.

    Raises:
        ChainNotFound: neither knows the chain.
    """
    here = known_here(chain)
    if here is not None:
        return here.validate_json if here.input_type is not None else anything
    if reader is None:
        return anything
    name = str(chain)
    announced = reader.chain(name) if name.isprintable() else None
    if announced is None:
        raise ChainNotFound(name, {*registered(), *reader.chains()})
    if announced.input_schema is None:
        return anything
    from jsonschema import Draft202012Validator  # on first use: it takes long to import

    validator = Draft202012Validator(announced.input_schema)

    def check(text: str) -> None:
        for error in validator.iter_errors(decode(text)):
            # Not `error.message`, which quotes the value.
            raise InvalidInput(
                f"the input of chain {chain!r} does not fit at {error.json_path}: "
                f"{error.validator} {error.validator_value}"
            )

    return check


def check_fields(chain: str | ChainSpec, block: Block) -> None:
    """Check that the first input has the fields that the chain's templates name.

    A later input without one is the error of its item.

    Raises:
        SubmitRefused: it lacks one; the message names those that it has.
    """
    if isinstance(chain, ChainSpec):
        try:
            chain.check(decode(split_head(block.inputs[0])[1]))
        except InvalidInput as error:
            raise SubmitRefused(f"input 0: {error}") from None


def anything(text: str) -> None:
    """Accept any JSON."""


def _announced(chain: str | ChainSpec, reader: BatchReader | None) -> ChainRecord | None:
    return None if reader is None else reader.chain(str(chain))


def live_only(chain: str | ChainSpec, reader: BatchReader | None) -> str | None:
    """Return why the chain cannot run in provider mode; None: it can."""
    here = known_here(chain)
    if here is not None:
        return why_not_offline(here.chain)
    announced = _announced(chain, reader)
    return None if announced is None else announced.live_only


def uncached(chain: str | ChainSpec, reader: BatchReader | None) -> str | None:
    """Return why a batch of the chain may not take outputs from the cache; None: it may."""
    here = known_here(chain)
    if here is not None:
        return here.why_not_cached()
    announced = _announced(chain, reader)
    return None if announced is None else announced.uncached


def unmetered(chain: str | ChainSpec, reader: BatchReader | None) -> str | None:
    """Return why a batch of the chain may not have a budget; None: it may."""
    here = known_here(chain)
    if here is not None:
        return here.why_not_metered()
    announced = _announced(chain, reader)
    return None if announced is None else announced.unmetered


def inputs_per_call(chain: str | ChainSpec, reader: BatchReader) -> int:
    """Return how many inputs one call of the chain's provider takes; 1 for most."""
    here = known_here(chain)
    if here is not None:
        return here.chain.inputs_per_call
    announced = reader.chain(str(chain))
    return 1 if announced is None else announced.inputs_per_call


def is_text(value: object, longest: int) -> bool:
    """Whether it is a string of 1 to `longest` characters that UTF-8 can carry."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= longest
        and not any("\ud800" <= char <= "\udfff" for char in value)
    )


def blocks(
    inputs: Iterable[Any],
    custom_ids: Iterable[str] | None,
    check: Check,
    settings: Settings,
    configs: Iterable[str | None] | None = None,
) -> Iterator[Block]:
    """Yield the inputs in blocks; takes them one by one, and holds one block at a time.

    `configs`: for each input, its config as JSON text; None: it has the batch's.

    Raises:
        SubmitRefused: an input does not fit, is not JSON or too large; a custom_id is missing,
            superfluous or not usable; there are too many items. The message names the index.
    """
    ids = None if custom_ids is None else iter(custom_ids)
    configs = None if configs is None else iter(configs)
    block = Block(start=0, custom_ids=None if ids is None else [])
    for index, value in enumerate(inputs):
        if index >= settings.max_items:
            raise SubmitRefused(
                f"more than {settings.max_items:,} inputs: split them, or raise BATCHORD_MAX_ITEMS"
            )
        config = None if configs is None else next(configs, None)
        try:
            text = _encoded(value, check, settings, config)
        except ValueRejected as error:
            raise ValueRejected(f"{_named(index, inputs)}: {error}", code=error.code) from None
        except InvalidInput as error:
            raise SubmitRefused(f"{_named(index, inputs)}: {error}") from None
        block.inputs.append(text)
        block.size += len(text)
        if ids is not None and block.custom_ids is not None:
            block.custom_ids.append(_custom_id(index, ids))
        if block.full:
            yield block
            block = Block(start=block.stop, custom_ids=None if ids is None else [])
    if ids is not None and next(ids, None) is not None:
        raise SubmitRefused(f"more custom_ids than the {block.stop} inputs: give one for each")
    if block.inputs:
        yield block


def _encoded(value: Any, check: Check, settings: Settings, config: str | None) -> str:
    head: dict[str, Any] = {} if config is None else {"config": config}
    if check is anything:
        # Else the chain's type says what the worker makes of the JSON.
        value, types = dump(value)
        head |= {"types": types} if types else {}
    text = encode(value, max_bytes=settings.max_input_bytes, setting="BATCHORD_MAX_INPUT_BYTES")
    check(text)
    return with_head(head, text)


def _named(index: int, inputs: Iterable[Any]) -> str:
    """Return what a message calls an input: with its line, if the inputs know where they stand."""
    place = getattr(inputs, "place", None)
    return f"input {index}" if place is None else f"input {index} ({place})"


def _custom_id(index: int, ids: Iterator[Any]) -> str:
    given: Any = next(ids, None)
    if given is None:
        raise SubmitRefused(f"no custom_id for input {index}: give one for each")
    if not is_text(given, MAX_CUSTOM_ID):
        raise SubmitRefused(
            f"custom_id of input {index}: a text of 1 to {MAX_CUSTOM_ID} characters"
            + ("" if isinstance(given, str) else f", not a {type(given).__name__}: pass str(...)")
        )
    return str(given)
