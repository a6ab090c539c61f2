"""The official SDKs behind one method: sync, async, Node. So a test may be a table of calls."""

import asyncio
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import httpx2
import openai

NODE_DRIVER: Final = Path(__file__).parent / "node_driver.mjs"


@dataclass(frozen=True)
class Asked:
    """A call of an SDK, as data: the same for each of them."""

    #: `files.create`, or `post` and `get` for what the SDK has no method for.
    method: str
    #: What goes before the parameters: an id, or the path.
    ids: tuple[str, ...] = ()
    #: `file` is `{"name", "text"}`.
    params: Mapping[str, Any] = field(default_factory=dict)
    #: Fields of the body that the SDK has no parameter for.
    more: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Go through all pages of a list.
    pages: bool = False


@dataclass(frozen=True)
class Said:
    """The result of a call: the raw text of the answer, or the error that the SDK has raised."""

    status: int
    request_id: str | None
    text: str = ""
    #: What all pages of a list have.
    entries: list[Any] = field(default_factory=list)
    #: The class of the SDK's error, and the object `error` of the body.
    refused: str | None = None
    error: Any = None

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Driver(Protocol):
    """One SDK with one key."""

    def ask(self, asked: Asked) -> Said: ...

    def close(self) -> None: ...


class Sync:
    """openai-python."""

    def __init__(self, base_url: str, key: str) -> None:
        self._client: Any = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0)

    def ask(self, asked: Asked) -> Said:
        try:
            if asked.pages:
                listed = _method(self._client, asked)(**_options(asked))
                return Said(200, "req_", entries=[each.to_dict() for each in listed])
            return _said(_raw(self._client, asked))
        except openai.APIStatusError as error:
            return _refused(error)

    def close(self) -> None:
        self._client.close()


class Async:
    """openai-python, with `await`."""

    def __init__(self, base_url: str, key: str) -> None:
        self._client: Any = openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0)
        self._runner = asyncio.Runner()

    def ask(self, asked: Asked) -> Said:
        return self._runner.run(self._ask(asked))

    async def _ask(self, asked: Asked) -> Said:
        try:
            if asked.pages:
                listed = _method(self._client, asked)(**_options(asked))
                return Said(200, "req_", entries=[each.to_dict() async for each in listed])
            return _said(await _raw(self._client, asked))
        except openai.APIStatusError as error:
            return _refused(error)

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


class Node:
    """openai-node, in a process that reads a call a line and writes an answer a line."""

    def __init__(self, base_url: str, key: str, folder: Path) -> None:
        """`folder`: where npm has put the SDK."""
        script = folder / NODE_DRIVER.name
        script.write_text(NODE_DRIVER.read_text())
        self._process = subprocess.Popen(
            ["node", str(script), base_url, key],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, asked: Asked) -> Said:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(vars(asked)), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, f"the Node SDK ended with {self._process.wait()}"
        return Said(**json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def _method(client: Any, asked: Asked, *, raw: bool = False) -> Any:
    resource, _, name = asked.method.partition(".")
    found = getattr(client, resource)
    return getattr(found.with_raw_response if raw else found, name)


def _options(asked: Asked) -> dict[str, Any]:
    params = dict(asked.params)
    if "file" in params:
        params["file"] = (params["file"]["name"], params["file"]["text"].encode())
    options = {"extra_body": asked.more or None, "extra_headers": asked.headers or None}
    return {**params, **{name: value for name, value in options.items() if value}}


def _raw(client: Any, asked: Asked) -> Any:
    if "." in asked.method:
        return _method(client, asked, raw=True)(*asked.ids, **_options(asked))
    body = {} if asked.method == "get" else {"body": dict(asked.more)}
    return getattr(client, asked.method)(*asked.ids, cast_to=httpx2.Response, **body)


def _said(answer: Any) -> Said:
    if isinstance(answer, httpx2.Response):
        return Said(answer.status_code, answer.headers.get("x-request-id"), answer.text)
    said = Said(answer.status_code, answer.headers.get("x-request-id"), answer.text)
    parsed = answer.parse()
    if isinstance(parsed, openai.BaseModel):
        assert parsed.to_dict() == said.json, "the SDK reads all of it"
    return said


def _refused(error: openai.APIStatusError) -> Said:
    return Said(error.status_code, error.request_id, refused=type(error).__name__, error=error.body)
