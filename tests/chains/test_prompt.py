"""Templates with named fields."""

from typing import Any

import pytest

from batchord.chains import ChainError, Document, InvalidInput, Prompt


def test_a_text_has_its_fields_put_in() -> None:
    prompt = Prompt("{greeting}, {name}! {greeting}!")
    assert prompt.invoke({"greeting": "Hi", "name": 7, "other": None}) == "Hi, 7! Hi!"


def test_messages_keep_their_roles() -> None:
    prompt = Prompt([("system", "Be {how}."), {"role": "user", "content": "{q}"}])
    assert prompt.invoke({"how": "brief", "q": "Why?"}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
    ]


def test_a_value_is_never_read_as_a_template() -> None:
    values = {"a": "{b} {0} {{", "b": "secret"}
    assert Prompt("{a}|{b}").invoke(values) == "{b} {0} {{|secret"


def test_a_single_field_takes_any_value() -> None:
    assert Prompt("Explain {topic}; {topic}.").invoke("RAG") == "Explain RAG; RAG."
    assert Prompt("no field").invoke("anything") == "no field"


def test_a_field_may_be_named_as_a_column_is() -> None:
    row = {"Ticket body": "down", "first-line": "hi", "Größe": 3}
    assert Prompt("{Ticket body}|{first-line}|{Größe}").invoke(row) == "down|hi|3"


def test_doubled_braces_are_braces() -> None:
    assert Prompt('{{"a": {value}}}').invoke({"value": 1}) == '{"a": 1}'


def test_documents_are_rendered_as_their_texts() -> None:
    class Page:
        page_content = "from elsewhere"
        metadata: dict[str, Any] = {}  # noqa: RUF012

    found = [Document("one"), Document("two"), Page()]
    assert Prompt("{c}|{d}").invoke({"c": found, "d": Document("x")}) == (
        "one\n\ntwo\n\nfrom elsewhere|x"
    )
    assert Prompt("{c}").invoke({"c": ["a", "b"]}) == "['a', 'b']"


@pytest.mark.parametrize(
    "template",
    [
        "{}",
        "{0}",
        "{a.b}",
        "{a[0]}",
        "{a!r}",
        "{a:>10}",
        '{"a": 1}',
        "{a",
        "a}",
        "{ a}",
        "{a }",
        "{1 a}",
        "{a b.c}",
        "{a, b}",
        "{a:{b}}",
    ],
)
def test_anything_but_a_plain_name_in_braces_is_refused_at_once(template: str) -> None:
    with pytest.raises(ValueError, match=r"bad template: .* write \{\{ and \}\} for braces"):
        Prompt(template)


def test_a_missing_field_is_named_and_values_are_not() -> None:
    with pytest.raises(ChainError) as raised:
        Prompt("{question} {context}").invoke({"question": "canary", "extra": "canary"})
    assert raised.value.code == "prompt_field_missing"
    assert str(raised.value) == "the prompt's input lacks context (it has: question, extra)"
    assert raised.value.step == "Prompt"


@pytest.mark.parametrize("value", [{"a": 1, "b": None}, {"a": 1}, None], ids=str)
def test_a_field_without_a_value_is_named(value: Any) -> None:
    prompt = Prompt("{b}") if value is None else Prompt("{a} {b}")

    with pytest.raises(ChainError, match=r"\bb\b") as raised:
        prompt.invoke(value)

    assert raised.value.code == "prompt_field_missing"


def test_many_fields_want_a_dict() -> None:
    with pytest.raises(InvalidInput, match="fields a, b: its input must be a dict, not str"):
        Prompt("{a}{b}").invoke("canary")


@pytest.mark.parametrize("template", [[], [("user", 3)], [{"role": "user"}]])
def test_what_is_no_template_is_refused_at_once(template: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="message"):
        Prompt(template)
