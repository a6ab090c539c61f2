"""Answers with a structure, from providers that know no schemas, or few of their keywords."""

import dataclasses
import datetime
import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal

import pydantic
import pytest

from batchord.chains import Chat, Responses, Runnable
from batchord.chains.steps.structured_output import Structure
from tests.providers.behaviours import Raw
from tests.providers.server import MisbehavingServer
from tests.support.openai_answers import JsonObject, messages_of, request_text

any_step = pytest.mark.parametrize("make", [Chat, Responses])
Make = Callable[..., Runnable[Any, Any]]


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str = "Rex"


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


class Owner(pydantic.BaseModel):
    pet: Pet
    default: str = "the name of a field, and no keyword"
    since: datetime.date | None = None
    spot: tuple[int, int] = (0, 0)
    words: set[str] = pydantic.Field(default_factory=set)
    price: Decimal = Decimal(1)
    site: pydantic.AnyUrl | None = None


class Node(pydantic.BaseModel):
    children: list["Node"] = []


class Loose(pydantic.BaseModel):
    counts: dict[str, int]


class Pets(pydantic.RootModel[list[Cat]]):
    pass


@dataclasses.dataclass
class Point:
    x: int = 0
    y: int = 0


#: Types, and a good answer of each.
TYPES: dict[str, tuple[Any, Any]] = {
    "union": (Pet, Dog(kind="dog")),
    "list": (list[Cat], [Cat(kind="cat")]),
    "list of a union": (list[Pet], [Cat(kind="cat"), Dog(kind="dog")]),
    "nested": (Owner, Owner(pet=Dog(kind="dog"), site=pydantic.AnyUrl("https://x.test"))),
    "recursive": (Node, Node(children=[Node()])),
    "root": (Pets, Pets([Cat(kind="cat")])),
    "dataclass": (Point, Point(1, 2)),
    "list of dataclasses": (list[Point], [Point(1, 2)]),
    "uuid": (list[uuid.UUID], [uuid.UUID(int=1)]),
    "number": (int, 3),
    "choice": (Literal["a", "b"], "b"),
    "open": (Loose, Loose(counts={"a": 1})),
}


def refusals(schema: Any, place: str = "$", top: bool = True) -> list[str]:
    """Return a strict provider's objections to a schema, keyword by keyword."""
    if not isinstance(schema, dict):
        return []
    found = [
        f"{place}: {key}"
        for key in ("oneOf", "default", "allOf", "prefixItems", "uniqueItems", "discriminator")
        if key in schema
    ]
    if top and (schema.get("type") != "object" or "anyOf" in schema):
        found.append(f"{place}: no object at the top")
    fields = schema.get("properties")
    if fields is not None:
        if schema.get("additionalProperties") is not False:
            found.append(f"{place}: additionalProperties")
        if sorted(schema.get("required", [])) != sorted(fields):
            found.append(f"{place}: required")
    if schema.get("type") == "array" and "items" not in schema:
        found.append(f"{place}: an array without items")
    if "(?" in schema.get("pattern", ""):
        found.append(f"{place}: look-around")
    if isinstance(schema.get("additionalProperties"), dict):
        found.append(f"{place}: fields of any name")
    for key in ("properties", "$defs"):
        for name, inner in schema.get(key, {}).items():
            found += refusals(inner, f"{place}.{name}", False)
    for inner in schema.get("anyOf", []):
        found += refusals(inner, f"{place}.anyOf", False)
    return found + refusals(schema.get("items"), f"{place}[]", False)


def asked_form(body: JsonObject) -> Any:
    """The form that a request asks for, in the Responses API's words."""
    wanted = body.get("response_format") or (body.get("text") or {}).get("format")
    return wanted if wanted is None else {**wanted, **wanted.get("json_schema", {})}


@pytest.mark.parametrize("name", TYPES)
def test_schemas_are_such_as_strict_providers_take(name: str) -> None:
    output_type, value = TYPES[name]
    structure: Structure[Any] = Structure(output_type)
    form = structure.form("json_schema")
    assert form is not None
    found = refusals(form["schema"])
    if form["strict"]:
        assert found == []
    else:
        assert name == "open"
        assert [one for one in found if "additionalProperties" not in one] != []
    plain = pydantic.TypeAdapter(output_type).dump_python(value, mode="json")
    for text in (plain, {"value": plain}) if structure._wrapped else (plain,):
        assert structure.read(json.dumps(text)) == value


def strict_provider(request: JsonObject, good: JsonObject) -> Raw:
    """Refuse schemas that are not strict, else answer."""
    form = asked_form(request)
    found = refusals(form["schema"]) if form["strict"] else []
    if not found:
        return Raw(body=json.dumps(good).encode())
    return Raw(status=400, body=json.dumps({"error": {"message": "; ".join(found)}}).encode())


@any_step
@pytest.mark.parametrize("name", TYPES)
def test_a_strict_provider_answers(provider: MisbehavingServer, make: Make, name: str) -> None:
    provider.misbehave(strict_provider)
    make(output_type=TYPES[name][0]).invoke("hello")
    assert len(provider.requests) == 1


def knows(*forms: str | None) -> Any:
    """Refuse all forms but these; a good answer is in the prompt's words, if it has the schema."""

    def behave(request: JsonObject, good: JsonObject) -> Raw:
        form = asked_form(request)
        kind = None if form is None else form["type"]
        if kind not in forms:
            words = {"error": {"message": f"This response_format type is unavailable now: {kind}"}}
            return Raw(status=400, body=json.dumps(words).encode())
        told = "JSON schema" in request_text(request) and '"lives"' in request_text(request)
        text = '{"kind": "cat", "lives": 3}' if told else '{"kind": "mouse"}'
        if "choices" in good:
            good["choices"][0]["message"]["content"] = text
        else:
            good["output"][-1]["content"][0]["text"] = text
        return Raw(body=json.dumps(good).encode())

    return behave


@any_step
@pytest.mark.parametrize(("how", "form"), [("json_object", "json_object"), ("prompt", None)])
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_a_provider_without_schemas_is_told_in_the_prompt(
    provider: MisbehavingServer, make: Make, how: str, form: str | None, system: str | None
) -> None:
    provider.misbehave(knows(form))
    step = make(output_type=Cat, structured_output=how, system=system)
    assert step.invoke("hello") == Cat(kind="cat", lives=3)
    [request] = provider.requests
    said = messages_of(request.body)
    assert said[-1]["content"] == "hello"
    assert said[-1]["role"] == "user"
    if system is not None:
        assert said[0]["content"].startswith(system)
    if make is Chat:
        assert [one["role"] for one in said] == ["system", "user"]
    assert step.request("hello") == request.body  # type: ignore[attr-defined]


def test_messages_of_ones_own_keep_their_order(provider: MisbehavingServer) -> None:
    provider.misbehave(knows(None))
    given = [{"role": "system", "content": "First."}, {"role": "user", "content": "hello"}]
    step = Chat(output_type=Cat, structured_output="prompt")
    assert step.invoke(given).lives == 3
    said = provider.requests[0].body["messages"]
    assert [one["role"] for one in said] == ["system", "user"]
    assert said[0]["content"].startswith("First.\n\nAnswer with one JSON value")
    assert given[0]["content"] == "First."


FORMS: list[tuple[Make, dict[str, Any]]] = [
    (Chat, {"response_format": {"type": "json_object"}}),
    (Chat, {"extra_body": {"response_format": {"type": "json_object"}}}),
    (Responses, {"text": {"format": {"type": "json_object"}, "verbosity": "low"}}),
]


@pytest.mark.parametrize(("make", "options"), FORMS)
def test_a_form_of_ones_own_goes_out_as_it_is(
    provider: MisbehavingServer, make: Make, options: dict[str, Any]
) -> None:
    provider.misbehave(knows("json_object"))
    step = make(output_type=Cat, reasks=0, **options)
    assert step.invoke('JSON schema: {"lives"}').lives == 3
    [request] = provider.requests
    wanted = {**options, **options.get("extra_body", {})}
    for name in {"response_format", "text"} & wanted.keys():
        assert request.body[name] == wanted[name]


@any_step
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"structured_output": "json_schema"}, "for an output_type"),
        ({"output_type": Cat, "structured_output": "json"}, "one of json_schema, json_object"),
        ({"n": 3}, "only the first"),
        ({"extra_body": {"n": 2}}, "only the first"),
        ({"tools": [{"type": "function", "name": "f"}]}, "use Request"),
        ({"tools": [{"type": "custom", "name": "f"}]}, "use Request"),
        ({"functions": [{"name": "f"}]}, "use Request"),
        ({"stream": True}, "taken whole"),
        ({"extra_body": {"stream": True}}, "taken whole"),
    ],
)
def test_what_would_be_lost_is_refused_at_once(
    make: Make, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        make(**options)


@pytest.mark.parametrize(("make", "options"), FORMS)
def test_two_forms_are_refused(make: Make, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leave out"):
        make(output_type=Cat, structured_output="prompt", **options)


@any_step
def test_what_would_be_lost_is_refused_for_one_call(
    provider: MisbehavingServer, make: Make
) -> None:
    with pytest.raises(ValueError, match="only the first"):
        make().invoke("hello", n=3)
    assert provider.requests == []


@any_step
def test_tools_that_the_provider_runs_itself_are_sent(
    provider: MisbehavingServer, make: Make
) -> None:
    tools = [{"type": "web_search"}]
    assert make(tools=tools).invoke("hello") == "echo: hello"
    assert provider.requests[0].body["tools"] == tools


def test_another_way_of_asking_is_another_step_to_the_cache() -> None:
    ways: list[Any] = [None, "json_schema", "json_object", "prompt"]
    prints = [Chat("m", output_type=Cat, structured_output=way).fingerprint() for way in ways]
    assert prints[0] == prints[1]
    assert prints[0] not in prints[2:]
    assert prints[2] != prints[3]
