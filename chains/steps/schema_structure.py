"""Answers that a JSON schema describes, where there is no Python type for them."""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pydantic
import pydantic_core

from batchord.chains.runtime.checkpoints import digest
from batchord.chains.steps.structured_output import Structure, refuse_infinite, strict

if TYPE_CHECKING:
    from jsonschema import ValidationError as Misfit
    from jsonschema.protocols import Validator

#: Keywords that combine or condition schemas: no strict provider takes them.
_REFUSED: Final = (
    *("allOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas"),
    *("contains", "propertyNames", "unevaluatedProperties", "unevaluatedItems"),
)
#: Places of a schema whose parts are named by the user, and places that hold values.
_NAMED: Final = ("properties", "$defs", "definitions", "patternProperties")
_VALUES: Final = ("enum", "const", "default", "examples", "required")
#: Misfits that a message names; a model that is asked again needs no more.
_MOST_NAMED: Final = 10


class SchemaStructure(Structure[Any]):
    """The structure that a JSON schema describes; an answer is JSON values.

    A schema whose top is not an object goes to the provider inside an object, as types do.

    Raises:
        TypeError: it is not a JSON schema, or not one that strict providers take.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._given = dict(schema)
        if (problem := refusal(self._given)) is not None:
            raise TypeError(f"output_type: {problem}")
        self._wrapped = "properties" not in self._given

    @property
    def name(self) -> str:
        title = self._given.get("title")
        return self.cleaned(title) if isinstance(title, str) and title else "Answer"

    @cached_property
    def schema(self) -> dict[str, Any]:
        if not self._wrapped:
            return dict(strict(self._given))
        value = dict(self._given)
        # References lead to the top.
        shared = {name: value.pop(name) for name in ("$defs", "definitions") if name in value}
        return dict(strict({"type": "object", "properties": {"value": value}, **shared}))

    @cached_property
    def digest(self) -> str | None:
        return digest(self._given)

    def plain(self, answer: Any) -> Any:
        return answer

    def _read(self, text: str) -> Any:
        refuse_infinite(text, self.name)
        try:
            found = pydantic_core.from_json(text)
        except ValueError as error:
            detail = {"type": "json_invalid", "loc": (), "ctx": {"error": str(error)}}
            raise self._error([detail]) from None
        if self._wrapped and isinstance(found, dict) and found.keys() == {"value"}:
            found = found["value"]
        if problems := [_detail(each) for each in self._validator.iter_errors(found)]:
            raise self._error(problems[:_MOST_NAMED])
        return found

    def _error(self, details: list[Any]) -> pydantic.ValidationError:
        lines: Any = [{"input": None, **each} for each in details]
        return pydantic.ValidationError.from_exception_data(self.name, lines)

    @cached_property
    def _validator(self) -> "Validator":
        from jsonschema import Draft202012Validator  # on first use: it takes long to import

        return Draft202012Validator(self._given, format_checker=Draft202012Validator.FORMAT_CHECKER)


def refusal(schema: Mapping[str, Any]) -> str | None:
    """Return why no strict provider takes the JSON schema, and what to do; None: one does."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"not a JSON schema: {error.message[:200]} (at {error.json_path})"
    if "properties" not in schema and schema.get("type") == "object":
        return "the schema would let the model choose the fields: name them under properties"
    if not any(key in schema for key in ("type", "enum", "const", "anyOf", "oneOf", "$ref")):
        return "the schema takes any value at all: give it a type"
    return next(filter(None, (_problem(schema, *each) for each in _parts(schema, "$"))), None)


def _problem(root: Mapping[str, Any], place: str, part: Mapping[str, Any]) -> str | None:
    for keyword in _REFUSED:
        if keyword in part and not (keyword == "allOf" and len(part["allOf"]) == 1):
            return (
                f"strict providers refuse {keyword} (at {place}): leave it out, or write what it "
                "says as types, enums and anyOf"
            )
    target = part.get("$ref")
    if isinstance(target, str) and not _resolves(root, target):
        return f"$ref {target[:100]!r} (at {place}) names nothing in the schema itself"
    return None


def _resolves(root: Mapping[str, Any], target: str) -> bool:
    """Whether the reference names a part of this schema: none is fetched from elsewhere."""
    if not target.startswith("#"):
        return False
    found: Any = root
    for name in target.split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            return False
        found = found[name]
    return target == "#" or target.startswith("#/")


def _parts(schema: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each schema within the schema, itself first, and its place."""
    if isinstance(schema, list):
        for number, each in enumerate(schema):
            yield from _parts(each, f"{place}[{number}]")
    if not isinstance(schema, Mapping):
        return
    yield place, schema
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            for name, each in value.items():
                yield from _parts(each, f"{place}.{key}.{name}")
        elif key not in _VALUES:
            yield from _parts(value, f"{place}.{key}")


def _detail(error: "Misfit") -> dict[str, Any]:
    """Say what the schema expects at the place, and not what stands there."""
    wanted: Any = error.validator_value
    found: Any = error.instance
    if error.validator == "required":
        lacking = [name for name in wanted if name not in found]
        text = f"lacks {', '.join(map(str, lacking))}"
    elif error.validator == "additionalProperties":
        text = "has fields that the schema does not name"
    else:
        text = f"must fit {error.validator} {json.dumps(wanted, ensure_ascii=False)[:200]}"
    message = pydantic_core.PydanticCustomError("json_schema", "{text}", {"text": text})
    return {"type": message, "loc": tuple(error.absolute_path)}


def structure_of(output_type: Any) -> Structure[Any]:
    """Return what an answer is read as: a type, or what a JSON schema describes."""
    known = isinstance(output_type, Mapping)
    return SchemaStructure(output_type) if known else Structure(output_type)
