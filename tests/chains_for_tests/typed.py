"""Types that a chat's answer may have, each with an answer and with what is recorded of it."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypeVar

import openai  # noqa: F401  (as a worker starts, and not in the time of the first item)
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    computed_field,
)
from typing_extensions import TypedDict

from batchord.chains import Chat, RetryLater, RetryPolicy, register

T = TypeVar("T")


@dataclass
class Point:
    x: int
    y: int = 0


class Color(Enum):
    RED = "red"


class Place(NamedTuple):
    name: str
    height: int


class Options(TypedDict):
    name: str
    size: int


class Aliased(BaseModel):
    url: str = Field(alias="theUrl")


class Renamed(BaseModel):
    url: str = Field(validation_alias="in", serialization_alias="out")


class Names(RootModel[list[str]]):
    pass


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class Excluded(BaseModel):
    answer: str
    thoughts: str = Field(exclude=True)


class Growing(BaseModel):
    text: Annotated[str, AfterValidator(lambda text: text + "!")]


class Box(BaseModel, Generic[T]):
    inside: T


class Nested(BaseModel):
    when: datetime
    points: list[Point]
    prices: dict[Literal["low", "high"], Decimal]
    colors: set[Color]
    box: Box[date] | None = None


class Coded(BaseModel):
    model_config = ConfigDict(val_json_bytes="base64")
    data: bytes


class Row(NamedTuple):
    type: Any
    #: The model's answer, as a Python value of JSON types.
    answer: Any
    recorded: Any


_ID = "12345678-1234-5678-1234-567812345678"


def _same(type_: Any, answer: Any) -> Row:
    """A type whose values are recorded as they were answered."""
    return Row(type_, answer, answer)


#: By name; an answer that is no object stands in one, as `value`.
ROWS: dict[str, Row] = {
    "dataclass": _same(Point, {"x": 1, "y": 2}),
    "dataclass-default": Row(Point, {"x": 1}, {"x": 1, "y": 0}),
    "dataclasses": _same(list[Point], [{"x": 1, "y": 2}]),
    "date": _same(date, "2026-11-28"),
    "datetime": _same(datetime, "2026-11-28T04:00:00Z"),
    "decimal": Row(Decimal, "1.50", "1.50"),
    "decimal-number": Row(Decimal, 1.5, "1.5"),
    "decimal-nan": Row(Annotated[Decimal, Field(allow_inf_nan=True)], "NaN", "NaN"),
    "uuid": _same(uuid.UUID, _ID),
    "set": _same(set[int], [3]),
    "frozenset": Row(frozenset[str], ["a", "a"], ["a"]),
    "tuple": _same(tuple[int, str], [1, "one"]),
    "enum": _same(Color, "red"),
    "enums": _same(list[Color], ["red"]),
    "literal": _same(Literal["low", "high"], "low"),
    "union": _same(int | Point, {"x": 1, "y": 2}),
    "optional": _same(Optional[Point], None),  # noqa: UP045
    "optional-date": _same(date | None, "2026-11-28"),
    "alias": _same(Aliased, {"theUrl": "a"}),
    "aliases": _same(list[Aliased], [{"theUrl": "a"}]),
    "two-aliases": Row(Renamed, {"in": "a"}, {"out": "a"}),
    "root": _same(Names, ["a", "b"]),
    "computed": Row(Computed, {"side": 3}, {"side": 3, "area": 9}),
    "excluded": Row(Excluded, {"answer": "yes", "thoughts": "no"}, {"answer": "yes"}),
    "growing": Row(Growing, {"text": "a"}, {"text": "a!"}),
    "typed-dict": _same(Options, {"name": "a", "size": 1}),
    "named-tuple": _same(Place, ["a", 1]),
    "generic": _same(Box[date], {"inside": "2026-11-28"}),
    "bytes": _same(bytes, "ä"),
    "path": _same(PurePosixPath, "/a/b"),
    "nested": _same(
        Nested,
        {
            "when": "2026-11-28T04:00:00Z",
            "points": [{"x": 1, "y": 2}],
            "prices": {"low": "1.50"},
            "colors": ["red"],
            "box": {"inside": "2026-11-28"},
        },
    ),
}

#: By name: types that are refused, and what the error says to do.
REFUSED: dict[str, tuple[Any, str]] = {
    "secret": (SecretStr, "make it a str"),
    "secret-field": (Box[SecretStr], "make it a str"),
    "iterable": (Iterable[int], "make it a list"),
    "bytes-one-way": (Coded, "set ser_json_bytes='base64'"),
    "callable": (type(len), "pydantic can validate"),
    "any-object": (dict[str, int], "choose the fields"),
}

_calls: Counter[str] = Counter()


def shown(value: Any) -> str:
    """The value with its types."""
    return repr(value)


def fails_once(name: str) -> Callable[[Any], str]:
    """A step that shows the value, but not at the first time."""

    def show(value: Any) -> str:
        _calls[name] += 1
        if _calls[name] == 1:
            raise RetryLater("not yet")
        return shown(value)

    return show


def chat(name: str) -> Any:
    return Chat("test-model", output_type=ROWS[name].type, name=name)


for _name in ROWS:
    register(f"typed-{_name}", chat(_name))
    register(
        f"shown-{_name}",
        chat(_name) | fails_once(_name),
        retry=RetryPolicy(max_attempts=2, initial=0.01),
    )
register("typed-branches", {"left": chat("date"), "right": chat("optional-date")})
