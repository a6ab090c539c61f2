"""Behaviours: what a misbehaving provider answers, as functions that a table can name."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.openai_answers import JsonObject


@dataclass(frozen=True, kw_only=True)
class Raw:
    """An HTTP response as it goes over the wire; the connection is closed after it."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: This many bytes of the body are sent; None: all.
    cut: int | None = None
    #: The connection stays open after what was sent.
    hangs: bool = False

    def head(self) -> bytes:
        """The status line and the headers, with the length of the whole body unless they say."""
        headers = {
            "content-type": "application/json",
            "content-length": str(len(self.body)),
            "connection": "close",
            **{name.lower(): value for name, value in self.headers.items()},
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        return f"HTTP/1.1 {self.status} Told\r\n{lines}\r\n".encode("latin-1")

    @property
    def sent(self) -> bytes:
        """The bytes of the body that are sent."""
        return self.body[: self.cut]


#: From the body of a request and of its right answer to the response.
Behaviour = Callable[[JsonObject, JsonObject], Raw]


def says(body: Any, status: int = 200, **headers: str) -> Behaviour:
    """Answer with this JSON; an underscore in a header's name is a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _request, _good: Raw(status=status, headers=named, body=json.dumps(body).encode())


def sends(body: bytes | str, status: int = 200, **headers: str) -> Behaviour:
    """Answer with these bytes, whatever they are."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body.encode() if isinstance(body, str) else body
    return lambda _request, _good: Raw(status=status, headers=named, body=content)


def changed(change: Callable[[JsonObject], Any]) -> Behaviour:
    """Answer with what the function makes of the right body: a change in place, or a new body."""

    def behave(_request: JsonObject, good: JsonObject) -> Raw:
        made = change(good)
        return Raw(body=json.dumps(good if made is None else made).encode())

    return behave


def choice(**fields: Any) -> Behaviour:
    """Answer a chat with these fields in its choice; `content`, `tool_calls` are its message's."""

    def change(good: JsonObject) -> None:
        first = good["choices"][0]
        for name, value in fields.items():
            (first if name in ("finish_reason", "error") else first["message"])[name] = value

    return changed(change)


def content(make: Callable[[str], Any]) -> Behaviour:
    """Answer a chat, or a request to the Responses API, with its right text changed so."""

    def change(good: JsonObject) -> None:
        if "choices" in good:
            message = good["choices"][0]["message"]
            message["content"] = make(message["content"])
        else:
            for item in good["output"]:
                for part in item.get("content", []):
                    part["text"] = make(part["text"])

    return changed(change)


def cut(share: float) -> Behaviour:
    """Answer with the first part of the right body, as if that were the whole."""

    def behave(_request: JsonObject, good: JsonObject) -> Raw:
        whole = json.dumps(good).encode()
        return Raw(body=whole[: int(len(whole) * share)])

    return behave


def encoded(charset: str, change: Callable[[str], str] = str) -> Behaviour:
    """Answer in this charset, and say so."""

    def behave(_request: JsonObject, good: JsonObject) -> Raw:
        text = change(json.dumps(good, ensure_ascii=False))
        named = {"content-type": f"application/json; charset={charset}"}
        return Raw(headers=named, body=text.encode(charset))

    return behave
