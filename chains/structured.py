"""Answers with a structure: what the provider is asked for, and what its text is read as."""

import re
from functools import cached_property
from typing import Any, Final, Generic, TypeVar

import pydantic

from chains.kept import digest

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
                f"not {output_type!r}"
            ) from error

    @property
    def name(self) -> str:
        """How the schema is called."""
        return _NOT_IN_NAMES.sub("_", self._model.__name__)[:64]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that the provider is asked for, in the strict form that it takes."""
        from openai import pydantic_function_tool  # on first use: see `chains.provider`

        found: Any = pydantic_function_tool(self._model)["function"]["parameters"]
        return dict(found)

    @cached_property
    def digest(self) -> str | None:
        """A short name of the schema."""
        return digest(self.schema)

    def read(self, text: str) -> T:
        """Return the answer that this text is, else raise pydantic's ValidationError."""
        if not self._wrapped:
            return self._adapter.validate_json(text)
        answer: Any = self._model.model_validate_json(text)
        value: T = answer.value
        return value

    def dump(self, answer: T) -> str | None:
        """The answer as JSON, if `load` makes the very same of it; else None."""
        try:
            text = self._adapter.dump_json(answer).decode()
            return text if self._adapter.validate_json(text) == answer else None
        except (ValueError, RecursionError):
            return None

    def load(self, text: str) -> T:
        """The answer that `dump` has made the text of; else ValueError."""
        return self._adapter.validate_json(text)


def _is_model(output_type: object) -> bool:
    return isinstance(output_type, type) and issubclass(output_type, pydantic.BaseModel)


def _is_free(output_type: Any) -> bool:
    """Whether its JSON would be any object at all, which no provider takes as a strict schema."""
    if isinstance(output_type, str):
        return True  # a name: of what, is not known here
    return bool(pydantic.TypeAdapter(output_type).json_schema().get("additionalProperties"))
