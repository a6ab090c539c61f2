"""JSON schemas of answers: from a Python type, from a schema, or from `field:type,...`."""

from collections.abc import Mapping
from typing import Any, Final

import pydantic

from batchord.chains.output_types import check_recordable
from batchord.chains.steps.structured_output import Structure

#: The types that a field may have on the command line, beside `a|b|c` for one of these words.
TYPES: Final = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_LIST: Final = "list["
_KNOWN: Final = f"{', '.join(TYPES)}, list[...] of one of these, or words as low|high"


def schema_of_type(output_type: Any) -> Any:
    """Return the JSON schema of a type that pydantic knows; a schema, and None, are returned as is.

    Raises:
        ValueError: pydantic makes no schema of it, or values of it cannot be recorded.
    """
    if output_type is None or isinstance(output_type, Mapping):
        return output_type
    if isinstance(output_type, str):
        raise ValueError(
            f"{output_type[:100]!r} is a text: give a type, or a JSON schema as a dict"
        )
    try:
        Structure(output_type)  # the checks, and the words, of Chat's `output_type`
        adapter = pydantic.TypeAdapter(output_type)
        check_recordable(adapter)
        return adapter.json_schema()
    except (TypeError, pydantic.PydanticUserError) as error:
        raise ValueError(str(error)) from None


def fields(text: str) -> dict[str, Any]:
    """Return the JSON schema of an object with these fields: `urgency:low|high,score:float`.

    Types are str, int, float, bool, list[...] of one of these, and words with `|` between them: one
    of the words. A field without a type is a str.

    Raises:
        ValueError: a name or a type is unknown; the message says which, and what is known.
    """
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, kind = (piece.strip() for piece in part.partition(":"))
        if not name.isidentifier():
            raise ValueError(f"{part.strip()!r} is not field:type, with a plain name for the field")
        if name in found:
            raise ValueError(f"the field {name} occurs twice")
        found[name] = _schema(name, kind or "str")
    return {
        "type": "object",
        "properties": found,
        "required": list(found),
        "additionalProperties": False,
    }


def _schema(name: str, kind: str) -> dict[str, Any]:
    if kind in TYPES:
        return {"type": TYPES[kind]}
    if kind.startswith(_LIST) and kind.endswith("]"):
        return {"type": "array", "items": _schema(name, kind[len(_LIST) : -1].strip())}
    words = [word.strip() for word in kind.split("|")]
    if len(words) > 1 and all(words) and not {*words} & {*TYPES} and "[" not in kind:
        return {"type": "string", "enum": list(dict.fromkeys(words))}
    raise ValueError(f"unknown type {kind!r} of the field {name}: use {_KNOWN}")
