"""Answers with a structure: what the provider is asked for, and what its text is read as."""

import json
import math
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final, Generic, TypeVar

import pydantic

from batchord.chains.output_types import check_recordable, plain
from batchord.chains.runtime.checkpoints import digest

T = TypeVar("T")

#: What a provider takes for no part of a name.
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")


class Structure(Generic[T]):
    """A type that pydantic can validate: a model, a dataclass, a list or a union of them, ...

    Raises:
        TypeError: pydantic makes nothing of it.
    """

    def __init__(self, output_type: Any) -> None:
        try:
            if _is_free(output_type):
                raise TypeError("it would let the model choose the fields")
            self._adapter: pydantic.TypeAdapter[T] = pydantic.TypeAdapter(output_type)
            check_recordable(self._adapter)
            # Providers take no schema but an object's at the top.
            self._wrapped = not _is_model(output_type)
            self._model: type[pydantic.BaseModel] = (
                pydantic.create_model("Answer", value=(output_type, ...))
                if self._wrapped
                else output_type
            )
        except (pydantic.PydanticUserError, NameError, TypeError) as error:
            raise TypeError(
                "output_type must be a type with fields of its own that pydantic can validate, "
                f"not {output_type!r} ({_first_line(error)})"
            ) from error

    @property
    def name(self) -> str:
        """The name of the schema."""
        return self.cleaned(self._model.__name__)

    @staticmethod
    def cleaned(name: str) -> str:
        """Return the name as providers take it."""
        return _NOT_IN_NAMES.sub("_", name)[:64]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that the provider is asked for, in the strict form that it takes."""
        from openai import (
            pydantic_function_tool,  # on first use: see `batchord.chains.openai.client`
        )

        found: Any = pydantic_function_tool(self._model)["function"]["parameters"]
        return dict(strict(found))

    def form(self, how: str) -> dict[str, Any] | None:
        """Return the response format to ask the provider for; None if the prompt describes it."""
        if how == "prompt":
            return None
        if how == "json_object":
            return {"type": how}
        whole = not _is_open(self.schema)
        return {"type": how, "name": self.name, "schema": self.schema, "strict": whole}

    @property
    def instruction(self) -> str:
        """The instruction for the model if no option carries the schema."""
        schema = json.dumps(self.schema, ensure_ascii=False)
        return (
            "Answer with one JSON value and nothing else, no explanation and no code fence. It "
            f"must fit this JSON schema:\n{schema}"
        )

    @cached_property
    def digest(self) -> str | None:
        """A short name of the schema."""
        return digest(self.schema)

    def read(self, text: str) -> T:
        """Return the answer that this text is, else raise pydantic's ValidationError.

        Also one that stands in a fence or behind a think block, or without the object around it.
        """
        try:
            return self._read(text)
        except pydantic.ValidationError as error:
            problem = error
        for inner in bare(text):
            try:
                return self._read(inner)
            except pydantic.ValidationError as error:
                problem = error
        raise problem

    def _read(self, text: str) -> T:
        refuse_infinite(text, self._model.__name__)
        if not self._wrapped:
            return self._adapter.validate_json(text)
        try:
            answer: Any = self._model.model_validate_json(text)
        except pydantic.ValidationError:
            try:
                return self._adapter.validate_json(text)
            except pydantic.ValidationError:
                pass  # what is said of the whole is what was asked for
            raise
        value: T = answer.value
        return value

    def plain(self, answer: T) -> Any:
        """Convert an answer to the JSON types that are recorded, or raise ChainError."""
        return plain(self._adapter, answer)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


#: Keywords that strict providers refuse, and that a schema can do without.
_DROPPED: Final = (
    *("default", "discriminator", "uniqueItems", "examples", "$schema", "$id", "$comment"),
)
#: What may stand beside a reference, and only describes.
_BESIDE_REF: Final = {"$ref", "title", "description", *_DROPPED}
#: Formats of texts that they know.
_FORMATS: Final = (
    *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"),
)
#: Where a schema has others by name; the names are no keywords.
_NAMED: Final = ("properties", "$defs", "definitions", "patternProperties")


def strict(schema: Any) -> Any:
    """Return the JSON schema in the form that strict providers take.

    `oneOf` is `anyOf`, a tuple is an array of any of its parts, and what only describes is left
    out. The answer is checked against the type itself, so nothing is lost.
    """
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if len(schema.get("allOf", ())) == 1:
        # Older generators put a reference so beside its description.
        schema = {**schema, **schema["allOf"][0]}
        del schema["allOf"]
    if "$ref" in schema and schema.keys() <= _BESIDE_REF:
        return {"$ref": schema["$ref"]}
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            made[key] = {name: strict(each) for name, each in value.items()}
        elif key in ("enum", "const", "required"):
            made[key] = value
        elif key == "oneOf":
            made["anyOf"] = [*made.get("anyOf", []), *strict(value)]
        elif key == "prefixItems":
            parts = strict(value)
            unique = [part for place, part in enumerate(parts) if part not in parts[:place]]
            made["items"] = unique[0] if len(unique) == 1 else {"anyOf": unique}
        elif key not in _DROPPED and not _is_unknown(key, value):
            made[key] = strict(value)
    fields = made.get("properties")
    if isinstance(fields, dict):
        made |= {"required": list(fields), "additionalProperties": False}
    return made


def _is_unknown(key: str, value: Any) -> bool:
    """Whether it is a format, or a pattern with a look-around, that strict providers refuse."""
    return (key == "format" and value not in _FORMATS) or (
        key == "pattern" and isinstance(value, str) and "(?" in value.replace("(?:", "")
    )


def _is_open(schema: Any) -> bool:
    """Whether an object in it has fields of any name, which no strict provider takes."""
    if isinstance(schema, list):
        return any(map(_is_open, schema))
    if not isinstance(schema, dict):
        return False
    if schema.get("additionalProperties") not in (None, False) or "patternProperties" in schema:
        return True
    return any(_is_open(value) for value in schema.values())


_THOUGHT: Final = re.compile(
    r"\s*<(think|thinking|thought|reasoning|analysis)>.*?</\1>", re.I | re.S
)
#: Where the opening tag was in the prompt, the answer has the closing one alone.
_THOUGHT_END: Final = re.compile(r"</(think|thinking|thought|reasoning|analysis)>", re.I)
_FENCE: Final = re.compile(r"```[ \t]*[\w+-]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.S)


def bare(text: str) -> Iterator[str]:
    """Yield what the text may be without its think block, and without its fence."""
    rest = text.lstrip("\ufeff")
    while found := _THOUGHT.match(rest):
        rest = rest[found.end() :]
    ends = list(_THOUGHT_END.finditer(rest))
    if ends:
        rest = rest[ends[-1].end() :]
    if rest != text:
        yield rest
    fences = _FENCE.findall(rest)
    if len(fences) == 1:
        yield fences[0]


def refuse_infinite(text: str, title: str) -> None:
    """Raise ValidationError for NaN and infinite numbers, which no output can hold."""

    def number(found: str) -> float:
        value = float(found)
        if not math.isfinite(value):
            raise _Infinite(found)
        return value

    try:
        json.loads(text, parse_float=number, parse_constant=number)
    except _Infinite as error:
        raise pydantic.ValidationError.from_exception_data(
            title,
            [
                {
                    "type": "finite_number",
                    "loc": (),
                    "input": str(error)[:40],
                }
            ],
        ) from None
    except (ValueError, RecursionError):
        return  # pydantic says what is wrong with it


class _Infinite(Exception):
    """A number of a JSON text that is not finite."""


def _is_model(output_type: object) -> bool:
    return (
        isinstance(output_type, type)
        and issubclass(output_type, pydantic.BaseModel)
        and not issubclass(output_type, pydantic.RootModel)
    )


def _is_free(output_type: Any) -> bool:
    """Whether its JSON would be any object at all, which no provider takes as a strict schema."""
    if isinstance(output_type, str):
        return True  # a name: of what, is not known here
    return bool(pydantic.TypeAdapter(output_type).json_schema().get("additionalProperties"))
