"""The kinds of JSON values in a column: what they have in common, as they come in.

A kind is "null" (nothing seen yet), "bool", "int", "long" (an integer that no float carries
exactly), "float", "text", ("list", KIND), ("struct", {NAME: KIND}), or "json": values that have no
type in common, each of which becomes JSON text.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

Kind = str | tuple[str, Any]

#: Integers that a float carries, and those that 64 bits hold.
_EXACT: Final = 2**53
_LONGEST: Final = 2**63

#: Fields of an object that become a struct; a larger one is JSON text.
_MOST_FIELDS: Final = 100

#: Kinds of numbers: what two of them have in common.
_NUMBERS: Final = {
    frozenset(("int", "long")): "long",
    frozenset(("int", "float")): "float",
}

_BY_JSON_SCHEMA: Final = {"string": "text", "integer": "int", "number": "float", "boolean": "bool"}


def kind_of_value(value: Any) -> Kind:
    """Return the kind of one JSON value."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        size = abs(value)
        return "int" if size <= _EXACT else "long" if size < _LONGEST else "json"
    if isinstance(value, float):
        return "float"
    if isinstance(value, list):
        inner: Kind = "null"
        for each in value:
            inner = merged(inner, kind_of_value(each))
        return ("list", inner)
    if not value or len(value) > _MOST_FIELDS:
        return "json"
    return ("struct", {name: kind_of_value(each) for name, each in value.items()})


def merged(one: Kind, other: Kind) -> Kind:
    """Return the kind that values of both kinds fit."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if isinstance(one, str) or isinstance(other, str):
        names = frozenset((one, other)) if isinstance(one, str) and isinstance(other, str) else ()
        return _NUMBERS.get(names, "json") if names else "json"
    if one[0] != other[0]:
        return "json"
    if one[0] == "list":
        return ("list", merged(one[1], other[1]))
    fields = dict(one[1])
    for name, kind in other[1].items():
        fields[name] = merged(fields.get(name, "null"), kind)
    return ("struct", fields) if len(fields) <= _MOST_FIELDS else "json"


def fitted(value: Any, kind: Kind) -> Any:
    """Return the value as a column of this kind holds it."""
    if value is None:
        return None
    if kind == "json":
        return json.dumps(value, ensure_ascii=False)
    if kind == "float":
        return float(value)
    if isinstance(kind, tuple) and kind[0] == "list":
        return [fitted(each, kind[1]) for each in value]
    if isinstance(kind, tuple):
        return {name: fitted(value.get(name), inner) for name, inner in kind[1].items()}
    return value


def arrow_type(pa: Any, kind: Kind) -> Any:
    """Return pyarrow's type of a column of this kind; of an empty one it is text."""
    if isinstance(kind, tuple) and kind[0] == "list":
        return pa.list_(arrow_type(pa, kind[1]))
    if isinstance(kind, tuple):
        return pa.struct([(name, arrow_type(pa, inner)) for name, inner in kind[1].items()])
    match kind:
        case "bool":
            return pa.bool_()
        case "int" | "long":
            return pa.int64()
        case "float":
            return pa.float64()
        case _:
            return pa.string()


def schema_fields(schema: Mapping[str, Any] | None) -> dict[str, Kind] | None:
    """Return the fields of objects that a JSON Schema describes; None if it is not of objects."""
    if schema is None:
        return None
    definitions = schema.get("$defs", {})
    schema = _resolved(schema, definitions)
    fields = schema.get("properties")
    if schema.get("type") != "object" or not fields:
        return None
    return {name: _kind_of_schema(each, definitions) for name, each in fields.items()}


def _kind_of_schema(schema: Any, definitions: Mapping[str, Any]) -> Kind:
    schema = _resolved(schema, definitions)
    choices = [_resolved(each, definitions) for each in schema.get("anyOf", ())]
    choices = [each for each in choices if each.get("type") != "null"]
    if len(choices) == 1:
        schema = choices[0]
    # Of lists and objects, the values say more.
    return _BY_JSON_SCHEMA.get(str(schema.get("type")), "null")


def _resolved(schema: Any, definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(schema, Mapping):
        return {}
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    found = definitions.get(name, schema)
    return found if isinstance(found, Mapping) else {}
