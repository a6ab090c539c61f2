"""Outputs as values of a type: a pydantic model, say, in place of the JSON that is recorded."""

import json
from collections.abc import Mapping
from typing import Any

import pydantic

from batchord.chains.explain import validation_message
from batchord.chains.langchain.objects import load
from batchord.ledger.errors import ItemNotSucceeded, OutputMismatch
from batchord.ledger.models import Item, ItemStatus


def read_output(adapter: pydantic.TypeAdapter[Any] | None, item: Item) -> Any:
    """Return the item's output as the adapter's type; None: JSON and LangChain's objects.

    Raises:
        ValueError: it is not of that type.
    """
    output = load(item.output, item.types or {})
    if adapter is None:
        return output
    if item.types:
        return adapter.validate_python(output)
    # As JSON: a strict type takes a date from a text there, and not from Python's str.
    return adapter.validate_json(json.dumps(output))


class OutputReader:
    """Reads the outputs of a batch as `output_type`; without one, and for a schema, as they are."""

    def __init__(self, output_type: Any = None) -> None:
        """Make the adapter of the type; raise TypeError if pydantic cannot check it."""
        self._adapter: pydantic.TypeAdapter[Any] | None = None
        if output_type is None or isinstance(output_type, Mapping):
            return
        try:
            self._adapter = pydantic.TypeAdapter(output_type)
        except pydantic.PydanticUserError as error:
            raise TypeError(
                f"output_type={output_type!r} is not a type that pydantic can check"
            ) from error

    def item(self, batch_id: str, item: Item) -> Item:
        """Return the item with its output as a value of the type.

        Raises:
            OutputMismatch: it is not of that type; the message names the item.
        """
        if self._adapter is None or item.status is not ItemStatus.SUCCEEDED:
            return item
        try:
            value = read_output(self._adapter, item)
        except pydantic.ValidationError as error:
            problem = validation_message(error)
        else:
            return item.model_copy(update={"output": value})
        name = "" if item.custom_id is None else f" ({item.custom_id[:80]})"
        raise OutputMismatch(
            f"item {item.index}{name} of batch {batch_id}: the output {problem}; read the batch "
            "without output_type to see it",
            batch_id=batch_id,
            index=item.index,
            custom_id=item.custom_id,
        )


def not_succeeded(batch_id: str, item: Item) -> ItemNotSucceeded:
    """Return the exception that stands for an item without an output."""
    why = f": {item.error.code}: {item.error.message}" if item.error else ""
    return ItemNotSucceeded(
        f"item {item.index} {item.status}{why}",
        batch_id=batch_id,
        index=item.index,
        custom_id=item.custom_id,
        status=item.status,
        cause=item.error,
    )
