"""Types of outputs: what of them can be recorded as JSON, and how."""

from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from batchord.chains.errors import ChainError


def check_recordable(adapter: pydantic.TypeAdapter[Any]) -> None:
    """Raise TypeError, which names the cure, if values of the type cannot be recorded as JSON.

    What would be lost in a record is found here, before anything is paid.
    """
    schema = adapter.json_schema(mode="serialization")
    if any(part.get("writeOnly") for part in _mappings(schema)):
        raise TypeError("a secret is recorded as asterisks: make it a str")
    for part in _mappings(adapter.core_schema):
        if part.get("type") == "generator":
            raise TypeError("an iterable is read once: make it a list")
        config = part.get("config")
        if isinstance(config, Mapping):
            _check_bytes(config)


def plain(adapter: pydantic.TypeAdapter[Any], value: Any) -> Any:
    """Return the value as JSON types, with the names that the type is validated by.

    Raises:
        ChainError: `output_not_json`, as one of its serializers has failed.
    """
    try:
        return adapter.dump_python(value, mode="json", by_alias=True, warnings=False)
    except (ValueError, RecursionError) as error:
        # Without pydantic's words: they quote the value.
        raise ChainError(
            f"the output cannot be written as JSON: {type(error).__name__} of its type's own",
            code="output_not_json",
        ) from None


def _check_bytes(config: Mapping[str, Any]) -> None:
    read, written = (config.get(f"{side}_json_bytes", "utf8") for side in ("val", "ser"))
    if read != written:
        raise TypeError(
            f"bytes are read as {read} and written as {written}: set ser_json_bytes={read!r}, too"
        )


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping within a schema, once."""
    seen: set[int] = set()
    todo = [value]
    while todo:
        one = todo.pop()
        if not isinstance(one, (Mapping, list, tuple)) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Mapping):
            yield one
            todo.extend(one.values())
        else:
            todo.extend(one)
