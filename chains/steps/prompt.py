"""Text and chat messages with named fields."""

import re
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any, Final

from batchord.chains.composition.step import Step
from batchord.chains.config import RunnableConfig
from batchord.chains.errors import ChainError, InvalidInput

Message = dict[str, Any]

#: A field's name: words, as columns of a table are headed; never a way into a value.
_FIELD: Final = re.compile(r"[^\W\d]\w*(?:[ -]+\w+)*")

#: LangChain's names of roles that the API calls by another name.
ROLES: Final = {"human": "user", "ai": "assistant"}
_KNOWN_ROLES: Final = ("system", "developer", "user", "assistant")

#: The field that holds a document's text, and all fields that the document may have as JSON.
_DOCUMENTS: Final = {
    "text": {"text", "metadata"},
    "page_content": {"page_content", "metadata", "id", "type"},
}


class Template:
    """Text with `{field}`s; `{{` and `}}` are braces. ValueError for anything else in braces.

    A field is a name, or words as a column may be headed: `{Ticket body}`.
    """

    def __init__(self, text: str) -> None:
        self._parts: list[tuple[str, str | None]] = []
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"bad template: {error}; write {{{{ and }}}} for braces") from None
        for literal, field, spec, conversion in parsed:
            if field is not None and (not _FIELD.fullmatch(field) or spec or conversion):
                raise ValueError(
                    f"bad template: the field {{{field}{'!' + conversion if conversion else ''}"
                    f"{':' + spec if spec else ''}}} is not a plain name: rename the column, "
                    "if it is one, or write {{ and }} for braces"
                )
            self._parts.append((literal, field))
        self.fields = tuple(dict.fromkeys(field for _, field in self._parts if field is not None))

    def render(self, values: Mapping[str, Any]) -> str:
        """Fill in each field's value once; a value is never read as a template."""
        return "".join(
            literal + ("" if field is None else _text_of(values[field]))
            for literal, field in self._parts
        )


class Prompt(Step[Any, Any]):
    """A template that renders a text or a list of chat messages.

    `Prompt("... {field} ...")` yields text, `Prompt([("system", "..."), ("user", "...")])` a
    list of chat messages (`{"role", "content"}`). Roles are system, developer, user (LangChain's
    human) and assistant (ai); ValueError for any other.

    The input is a mapping that has the fields. If the template has only one field, any input that
    is not a mapping is that field's value. A field that is missing or None is an error of the item,
    `prompt_field_missing`. Documents are rendered as their texts, with a blank line
    between.
    """

    is_call = False

    def __init__(
        self, template: str | Sequence[tuple[str, str] | Mapping[str, str]], name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self._is_text = isinstance(template, str)
        given: list[tuple[str, str]]
        if isinstance(template, str):
            given = [("user", template)]
        else:
            given = [_role_and_text(message) for message in template]
        if not given:
            raise ValueError("a prompt needs at least one message")
        self._given = given
        self._messages = [(role, Template(text)) for role, text in given]
        self.fields = tuple(dict.fromkeys(f for _, t in self._messages for f in t.fields))

    async def _run(self, input: Any, config: RunnableConfig, **options: Any) -> Any:
        return self.render(input)

    def render(self, input: Any) -> Any:
        """Return the text or the messages for this input."""
        values = self._values(input)
        rendered = [(role, template.render(values)) for role, template in self._messages]
        if self._is_text:
            return rendered[0][1]
        return [{"role": role, "content": text} for role, text in rendered]

    def fingerprint(self) -> Any:
        return ["prompt", self._is_text, self._given]

    def _values(self, input: Any) -> Mapping[str, Any]:
        if not isinstance(input, Mapping):
            if len(self.fields) > 1:
                raise InvalidInput(
                    f"the prompt has the fields {', '.join(self.fields)}: its input must be a "
                    f"dict, not {type(input).__name__}"
                )
            return self._filled(dict.fromkeys(self.fields, input))
        missing = [field for field in self.fields if field not in input]
        if missing:
            keys = ", ".join(str(key) for key in input) or "none"
            raise ChainError(
                f"the prompt's input lacks {', '.join(missing)} (it has: {keys})",
                code="prompt_field_missing",
            )
        return self._filled(input)

    def _filled(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values; a prompt with the word None in a field would be paid for."""
        empty = [field for field in self.fields if values[field] is None]
        if empty:
            raise ChainError(
                f"the prompt's input has no value in {', '.join(empty)}: it is null, as an empty "
                "cell of a table is",
                code="prompt_field_missing",
            )
        return values


def _role_and_text(message: tuple[str, str] | Mapping[str, str]) -> tuple[str, str]:
    if isinstance(message, Mapping):
        role, text = message.get("role"), message.get("content")
    else:
        role, text = message
    if not isinstance(role, str) or not isinstance(text, str):
        raise TypeError('a message is (role, text) or {"role": ..., "content": ...}')
    role = ROLES.get(role, role)
    if role not in _KNOWN_ROLES:
        raise ValueError(
            f"no message of a prompt has the role {role!r}: use {', '.join(_KNOWN_ROLES)}, or "
            f"LangChain's {', '.join(ROLES)}"
        )
    return role, text


def _text_of(value: Any) -> str:
    if isinstance(value, (list, tuple)) and value:
        texts = [_document_text(one) for one in value]
        if all(text is not None for text in texts):
            return "\n\n".join(text for text in texts if text is not None)
    text = _document_text(value)
    return str(value) if text is None else text


def _document_text(value: Any) -> str | None:
    """Return the text of a document (ours, LangChain's, or either as JSON), or None."""
    if isinstance(value, Mapping):
        # As JSON a document has its fields and, of LangChain's, an id and its type.
        for name, fields in _DOCUMENTS.items():
            text = value.get(name)
            if isinstance(text, str) and isinstance(value.get("metadata"), Mapping):
                return text if value.keys() <= fields else None
        return None
    for attribute in _DOCUMENTS:
        text = getattr(value, attribute, None)
        if isinstance(text, str) and hasattr(value, "metadata"):
            return text
    return None
