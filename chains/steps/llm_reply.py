"""The content of a model's answer, and what is wrong with one that cannot be used."""

from typing import NamedTuple

from batchord.chains.errors import ChainError


class Reply(NamedTuple):
    """The content of an answer's body, of either API."""

    text: str | None = None
    refusal: str | None = None
    #: Why it ended there: `length`, `content_filter`, or any other word.
    finish: str | None = None
    #: What the answer has instead of a text, as JSON.
    said: str | None = None


def whole(reply: Reply) -> str:
    """Return the text of an answer that must be complete to be parsed, or raise ChainError."""
    # What says nothing at its end is an empty answer, which does not fit: it is asked for again.
    silent = reply.text is None and reply.finish in ("stop", "completed") and not reply.refusal
    text = "" if silent else usable(reply)
    if reply.finish == "length":
        raise ChainError(
            "the answer was cut off at the token limit: allow more tokens", code="length", raw=text
        )
    return text


def usable(reply: Reply) -> str:
    """Return the text of an answer, or raise ChainError."""
    if reply.refusal:
        raise ChainError(f"the model refused: {reply.refusal}", code="refusal")
    if reply.finish == "content_filter":
        raise ChainError("the content filter withheld the answer", code="content_filter")
    if reply.text is None and reply.finish == "length":
        raise ChainError(
            "the answer was cut off at the token limit before its first word: allow more tokens",
            code="length",
        )
    if reply.text is None:
        raise ChainError(
            f"the model gave no text (it ended with {reply.finish})",
            code="invalid_output",
            raw=reply.said,
        )
    return reply.text
