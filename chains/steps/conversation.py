"""The messages of a conversation: made of an input, and what their texts are."""

from collections.abc import Iterable, Sequence
from typing import Any

from batchord.chains.errors import InvalidInput
from batchord.chains.langchain import inspection
from batchord.chains.steps.prompt import Message


class Conversing:
    """Makes messages of inputs; an API with messages of its own overrides a method."""

    name: str

    def _messages(self, input: Any) -> list[Message]:
        if isinstance(input, str):
            return [{"role": "user", "content": input}]
        if (converted := inspection.messages(input)) is not None:
            return converted
        if isinstance(input, Sequence) and input and all(map(self._is_message, input)):
            return list(input)
        raise InvalidInput(
            f"{self.name} takes a text, a list of messages "
            f'({{"role": ..., "content": ...}}), or LangChain\'s, not {type(input).__name__}'
        )

    def _said(self, text: str) -> Message:
        """Make the assistant message of an answer in a conversation."""
        return {"role": "assistant", "content": text}

    def _is_message(self, value: Any) -> bool:
        return isinstance(value, dict) and isinstance(value.get("role"), str)


def texts_of(content: Any) -> Iterable[str]:
    """Return the texts of a message's content, which is a text or a list of parts."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return [text for text in texts if isinstance(text, str)]
