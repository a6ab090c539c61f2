"""Chains by name."""

import json
from typing import Any

import pydantic
import pytest

import chains
from batchord.chains import ChainNotFound, InvalidInput, Lambda, Registry

echo = Lambda(str)


class Ticket(pydantic.BaseModel):
    subject: str
    priority: int = 0


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_chain_is_found_under_its_name(registry: Registry) -> None:
    registry.register("triage", echo, timeout=5.0)
    found = registry.get("triage")
    assert found.chain is echo
    assert (found.name, found.timeout) == ("triage", 5.0)
    assert list(registry.all()) == ["triage"]


def test_whatever_can_be_a_step_can_be_registered(registry: Registry) -> None:
    registry.register("upper", str.upper)
    assert registry.get("upper").chain.batch(["a"]) == ["A"]


def test_an_unknown_name_says_what_is_known(registry: Registry) -> None:
    registry.register("a", echo)
    with pytest.raises(ChainNotFound, match=r"'b' \(known: a\)"):
        registry.get("b")


def test_a_name_belongs_to_one_chain(registry: Registry) -> None:
    registry.register("a", str.upper)
    registry.register("a", str.upper)
    with pytest.raises(ValueError, match="another chain is registered as 'a'"):
        registry.register("a", str.lower)
    with pytest.raises(ValueError, match="another chain"):
        registry.register("a", str.upper, input_type=str)
    registry.register("a", str.lower, replace=True)
    assert registry.get("a").chain.invoke("A") == "a"


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "ä", "a\n", "a" * 129])
def test_a_name_that_could_confuse_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a chain"):
        registry.register(name, echo)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_is_a_positive_number(registry: Registry, timeout: float) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        registry.register("a", echo, timeout=timeout)


def test_an_input_is_made_into_what_the_chain_takes(registry: Registry) -> None:
    found = registry.register("a", echo, input_type=Ticket, output_type=list[int])
    assert found.validate_json(json.dumps({"subject": "x", "priority": "2"})) == Ticket(
        subject="x", priority=2
    )
    assert found.input_schema is not None
    assert found.input_schema["required"] == ["subject"]
    assert found.output_schema == {"type": "array", "items": {"type": "integer"}}


def test_an_input_that_does_not_fit_is_refused_without_quoting_it(registry: Registry) -> None:
    found = registry.register("a", echo, input_type=Ticket)
    with pytest.raises(InvalidInput, match="chain 'a' does not fit Ticket: priority: ") as raised:
        found.validate_json(json.dumps({"subject": "x", "priority": "canary"}))
    assert "canary" not in str(raised.value)
    assert raised.value.code == "invalid_input"


def test_without_a_type_any_input_fits(registry: Registry) -> None:
    found = registry.register("a", echo)
    value = {"any": ["thing", None]}
    assert found.validate_json(json.dumps(value)) == value
    assert found.input_schema is None


def test_a_type_that_cannot_be_checked_is_refused_at_once(registry: Registry) -> None:
    class Opaque: ...

    with pytest.raises(TypeError, match="input_type="):
        registry.register("a", echo, input_type=Opaque)


def test_the_package_has_one_registry_of_its_own() -> None:
    name = "test-registry-of-the-package"
    chains.register(name, echo)
    assert chains.get_chain(name) is chains.registered()[name]


def test_the_public_names_are_sorted_and_real() -> None:
    public: list[Any] = chains.__all__
    assert public == sorted(public)
    assert all(hasattr(chains, name) for name in public)
