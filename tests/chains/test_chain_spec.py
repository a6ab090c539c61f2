"""Chains as data: what one may say, what is refused, and what is built from it."""

import re
from dataclasses import replace
from typing import Any, Literal

import pydantic
import pytest

from batchord.chains import ChainSpec, InvalidInput, RateLimit, RetryPolicy
from batchord.chains.errors import BadSpec
from batchord.chains.explain import validation_message
from batchord.chains.runtime.retry import DEFAULT_RETRY
from batchord.chains.specs.chain_spec import chain_spec, family, is_spec, registered_spec
from batchord.chains.specs.field_types import fields
from batchord.chains.steps.offline_call import why_not_offline
from batchord.chains.steps.schema_structure import SchemaStructure


class Triage(pydantic.BaseModel):
    urgency: Literal["low", "high"]
    note: str | None = None


SPECS: list[dict[str, Any]] = [
    {"prompt": "Read {subject}: {Ticket body}"},
    {"prompt": "Read {x}", "system": "Be {how}.", "temperature": 0, "max_tokens": 7},
    {"prompt": "Read {x}", "output_schema": Triage, "structured_output": "json_object"},
    {"prompt": "Read {x}", "output_schema": list[Triage], "reasks": 0, "timeout": 5},
    {"prompt": "Read {x}", "output_schema": Literal["a", "b"], "options": {"seed": 1}},
    {"prompt": "Read {x}", "output_schema": fields("b:str,a:int")},
    {"embed": "text", "dimensions": 3},
    {
        "embed": "text",
        "retry": RetryPolicy(max_attempts=5),
        "limit": RateLimit("key", rpm=60),
    },
]


@pytest.mark.parametrize("given", SPECS)
def test_what_was_recorded_is_built_again_as_the_same_chain(given: dict[str, Any]) -> None:
    spec = chain_spec(model="m", **given)
    again = registered_spec(spec.name, spec.as_json())
    assert again.source == spec
    assert again.name == spec.name
    assert again.chain.fingerprint() == spec.build().fingerprint()
    assert is_spec(spec.name)
    assert family(spec.name) == ("embed" if "embed" in given else "prompt")
    assert why_not_offline(spec.build()) is None, "it may go through a provider's Batch API"
    assert again.why_not_cached() is None
    assert again.why_not_metered() is None


def test_each_thing_that_it_says_is_in_its_name() -> None:
    names = [chain_spec(model=model, **given).name for given in SPECS for model in ("m", "n")]
    assert len({*names}) == len(names)
    kept = fields("a:int,b:str")
    assert chain_spec(prompt="x", model="m", output_schema=kept).as_json().index('"a"') > 0
    order = [chain_spec(prompt="x", model="m", output_schema=fields(f)) for f in ("a,b", "b,a")]
    assert order[0].name != order[1].name, "a model writes the fields in their order"


def test_a_spec_under_another_name_is_not_built() -> None:
    one, other = (chain_spec(prompt=text, model="m") for text in ("one", "other"))
    with pytest.raises(BadSpec, match=f"{one.name}.*{other.name}"):
        registered_spec(one.name, other.as_json())
    with pytest.raises(BadSpec, match="x"):
        registered_spec(one.name, '{"prompt": "one", "model": "m", "x": 1}')


def test_its_settings_reach_the_steps() -> None:
    spec = ChainSpec(prompt="x", model="m", retry=replace(DEFAULT_RETRY, max_attempts=9))
    assert spec.build().steps[-1].retry.max_attempts == 9  # type: ignore[attr-defined]
    assert chain_spec(embed="text", model="m").build().inputs_per_call > 1


def _prompt(**more: Any) -> dict[str, Any]:
    return {"prompt": "Read {x}", "model": "m", **more}


def _schema(**more: Any) -> dict[str, Any]:
    return _prompt(output_schema={"type": "object", "properties": {"a": more}})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"prompt": "Read {x}"}, "no model: name one (model=, or -m), or set OPENAI_MODEL"),
        ({"model": "m"}, "give a prompt or a field to embed, and not both"),
        (_prompt(embed="x"), "give a prompt or a field to embed, and not both"),
        ({"prompt": "", "model": "m"}, "prompt: String should have at least 1 character"),
        ({"prompt": "{a.__class__}", "model": "m"}, "{a.__class__} is not a plain name"),
        ({"prompt": "{a[0]}", "model": "m"}, "{a[0]} is not a plain name"),
        ({"prompt": "{a!r:>9}", "model": "m"}, "{a!r:>9} is not a plain name"),
        ({"prompt": 'as {"a": 1}', "model": "m"}, "write {{ and }} for braces"),
        ({"embed": "a.b", "model": "m"}, "is not a plain name"),
        (_prompt(system="{"), "bad template"),
        (_prompt(dimensions=3), "dimensions: not for a prompt, leave it out"),
        ({"embed": "x", "system": "s"}, "system: not for an embedding, leave it out"),
        (_prompt(temperature="hot"), "temperature: Input should be a valid number"),
        (_prompt(max_tokens=0), "max_tokens: Input should be greater than or equal to 1"),
        (_prompt(api_key="sk-1"), "api_key: Extra inputs are not permitted"),
        (_prompt(base_url="http://x"), "base_url: Extra inputs are not permitted"),
        (_prompt(options={"extra_headers": {}}), "options: extra_headers cannot be set here"),
        (_prompt(options={"tools": [{"type": "function"}]}), "tools: nobody here runs"),
        (_prompt(options={"n": 2}), "n: of several answers only the first would be kept"),
        (_prompt(structured_output="json_object"), "structured_output is for an output_type"),
        (_prompt(output_schema="str"), "'str' is a text: give a type, or a JSON schema"),
        (_prompt(output_schema=object), "takes any value at all: give it a type"),
        (_prompt(output_schema=dict[str, int]), "it would let the model choose the fields"),
        (_prompt(output_schema={"type": "text"}), "not a JSON schema"),
        (_prompt(output_schema={}), "takes any value at all: give it a type"),
        (_prompt(output_schema={"type": "object"}), "name them under properties"),
        (_prompt(output_schema={"$ref": "https://x/y"}), "names nothing in the schema itself"),
        (_schema(**{"$ref": "#/$defs/b"}), "names nothing in the schema itself"),
        (_schema(**{"not": {}}), "refuse not (at $.properties.a)"),
        (_schema(**{"if": {}, "then": {}}), "refuse if (at $.properties.a)"),
        (_schema(allOf=[{"type": "string"}, {"minLength": 1}]), "refuse allOf"),
        ({"prompt": "x" * 200_001, "model": "m"}, "more than 200,000 characters"),
    ],
)
def test_a_bad_spec_is_refused_on_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSpec) as raised:
        chain_spec(**given)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_model_is_the_environments_unless_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "mine")
    assert chain_spec(prompt="x").model == "mine"
    assert chain_spec(prompt="x", model="other").model == "other"
    assert chain_spec(embed="x").model == "text-embedding-3-small"
    monkeypatch.setenv("OPENAI_EMBEDDING_MODEL", "vectors")
    assert chain_spec(embed="x").model == "vectors"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"Betreff": 1}, "no field subject, body: the input has Betreff"),
        ({"subject": 1}, "no field body: the input has subject"),
        ({}, "no field subject, body: the input has none"),
        ("text", "must be an object with these, not str"),
    ],
)
def test_an_input_without_the_fields_is_refused_and_its_own_are_named(
    value: Any, says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        chain_spec(prompt="{subject}: {body}", model="m").check(value)
    chain_spec(prompt="{subject}", model="m").check("text")


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("a", {"type": "string"}),
        ("a:int", {"type": "integer"}),
        ("a : float", {"type": "number"}),
        ("a:bool", {"type": "boolean"}),
        ("a:low|high", {"type": "string", "enum": ["low", "high"]}),
        ("a:list[str]", {"type": "array", "items": {"type": "string"}}),
        ("a:list[x|y]", {"type": "array", "items": {"type": "string", "enum": ["x", "y"]}}),
    ],
)
def test_little_types(text: str, schema: dict[str, Any]) -> None:
    found = fields(f"{text}, other:str")
    assert found["properties"] == {"a": schema, "other": {"type": "string"}}
    assert found["required"] == ["a", "other"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a:text", "unknown type 'text' of the field a: use str, int, float, bool, list"),
        ("a:str|int", "unknown type 'str|int'"),
        ("a:high", "unknown type 'high'"),
        ("a:list[b]", "unknown type 'b'"),
        ("a b:str", "'a b:str' is not field:type"),
        ("a,,b", "'' is not field:type"),
        ("a,a", "the field a occurs twice"),
    ],
)
def test_unknown_types_are_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        fields(text)


REFERS = {
    "$defs": {"Word": {"type": "string", "enum": ["a", "b"]}},
    "type": "array",
    "items": {"$ref": "#/$defs/Word", "description": "one"},
}


@pytest.mark.parametrize(
    ("schema", "text", "read"),
    [
        (fields("a:int"), '{"a": 1}', {"a": 1}),
        (fields("a:int"), '<think>x</think>```json\n{"a": 1}\n```', {"a": 1}),
        (REFERS, '{"value": ["a"]}', ["a"]),
        (REFERS, '["b"]', ["b"]),
        ({"enum": ["a", 1]}, '{"value": 1}', 1),
        ({"type": "string", "format": "date"}, '"2026-01-31"', "2026-01-31"),
    ],
)
def test_an_answer_that_fits_a_schema_is_json(schema: Any, text: str, read: Any) -> None:
    structure = SchemaStructure(schema)
    assert structure.read(text) == read
    assert structure.schema["type"] == "object", "what every provider takes"
    assert structure.schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("schema", "text", "says"),
    [
        (fields("a:low|high,b:int"), '{"a": "canary"}', 'a: must fit enum ["low", "high"]'),
        (fields("a:low|high,b:int"), '{"a": "canary"}', "lacks b"),
        (fields("a:int"), '{"a": "canary"}', 'a: must fit type "integer"'),
        (fields("a:int"), '{"a": 1, "canary": 1}', "has fields that the schema does not name"),
        (fields("a:float"), '{"a": NaN}', "finite number"),
        (fields("a:int"), "canary", "Invalid JSON"),
        (REFERS, '{"value": ["canary"]}', '0: must fit enum ["a", "b"]'),
        ({"type": "string", "format": "date"}, '"canary"', 'must fit format "date"'),
    ],
)
def test_an_answer_that_does_not_fit_is_told_what_the_schema_expects(
    schema: Any, text: str, says: str
) -> None:
    with pytest.raises(pydantic.ValidationError) as raised:
        SchemaStructure(schema).read(text)
    assert says in validation_message(raised.value)
    assert "canary" not in validation_message(raised.value)
