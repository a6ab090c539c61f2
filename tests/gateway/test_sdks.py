"""Forty calls of the Files and Batch API, by each official SDK; each answer is checked strictly.

The next call is a row of CALLS. What it gave is known to the rows below by its name: `{chat[id]}`.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Final, NamedTuple

import openai
import pydantic
import pytest
from openai.types import Batch, CreateEmbeddingResponse, FileDeleted, FileObject
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from tests.support.api_server import CHAT, ApiServer, ended, jsonl, make, request
from tests.support.harness import Deployment, wait_until
from tests.support.openai_server import OpenAIServer
from tests.support.sdk_checks import (
    ENDED,
    Check,
    a_page,
    all_pages,
    an,
    check_batch,
    lines,
    problems,
    progress,
    refused,
    refused_lines,
    text,
    unanswered_lines,
)
from tests.support.sdk_drivers import Asked, Async, Driver, Node, Said, Sync

pytestmark = pytest.mark.timeout(240)

EMBED, RESPONSES = "/v1/embeddings", "/v1/responses"


def _file(*requests: Any) -> dict[str, str]:
    return {"name": "requests.jsonl", "text": jsonl(requests).decode()}


def _line(number: int, url: str) -> dict[str, Any]:
    text = f"text {number}"
    said: Any = text if url == EMBED else [{"role": "user", "content": text}]
    return request(number, url=url, body={"model": "m", "input": said})


FOUR: Final = _file(*(request(i) for i in range(3)), request(3, "refused"))
ONE, EMPTY = _file(request(0)), {"name": "empty.jsonl", "text": ""}
EMBEDS, ASKS = _file(_line(0, EMBED), _line(1, EMBED)), _file(_line(0, RESPONSES))
HANGS: Final = _file(request(1, "hangs"))
BAD: Final = _file("{", request(1), request(1))
CHATS: Final = {"endpoint": CHAT, "completion_window": "24h"}
HOUR: Final = {"anchor": "created_at", "seconds": 3600}
COUNTS: Final = {"total": 4, "completed": 3, "failed": 1}
IDS: Final = [f"request-{i}" for i in range(4)]
NOBODYS: Final = "file-0123456789abcdef01234567"
KEY, WINDOW = "Idempotency-Key", "completion_window"
BY_KEY: Final = {KEY: "one"}


class Call(NamedTuple):
    """One call. Texts in `ids` and `params` may name earlier answers."""

    name: str
    method: str
    check: Check
    ids: tuple[str, ...] = ()
    params: Mapping[str, Any] = {}
    more: Mapping[str, Any] = {}
    headers: Mapping[str, str] = {}
    pages: bool = False
    #: Ask again until the batch has this status; each answer on the way is checked, too.
    until: str = ""


def _up(name: str, file: Any, check: Check | None = None, **params: Any) -> Call:
    """Upload a file."""
    check = check or an(FileObject, filename=file["name"], bytes=len(file["text"]), purpose="batch")
    return Call(name, "files.create", check, params={"file": file, "purpose": "batch", **params})


def _new(name: str, file: str, check: Check | None = None, **options: Any) -> Call:
    """Create a batch of an earlier file; `more` and `headers` go to the call, others to the API."""
    of_call = {name: options.pop(name) for name in ("more", "headers") if name in options}
    params = {"input_file_id": f"{{{file}[id]}}", **CHATS, **options}
    check = check or an(Batch, status="validating", input_file_id=params["input_file_id"])
    return Call(name, "batches.create", check, params=params, **of_call)


def _end(batch: str, status: str, **wanted: Any) -> Call:
    """Retrieve a batch until it has this status."""
    return _of("batches.retrieve", f"{{{batch}[id]}}", an(Batch, **wanted), batch, until=status)


def _of(method: str, what: str, check: Check, name: str = "", **options: Any) -> Call:
    """Make a call with an id or a path."""
    return Call(name, method, check, (what,), **options)


def _post(what: str, batch: str, check: Check, **body: Any) -> Call:
    """Make a call beyond OpenAI's."""
    return Call("", "post", check, (f"/batches/{{{batch}[id]}}/{what}",), more=body)


def _list(what: str, check: Check, **params: Any) -> Call:
    """Ask for one page."""
    return Call("", f"{what}.list", check, params=params)


def _all(what: str, check: Check, **params: Any) -> Call:
    """Go through all pages."""
    return Call("", f"{what}.list", check, params=params, pages=True)


CALLS: Final = (
    # Files.
    _up("four", FOUR),
    _up("one", ONE, expires_after=HOUR),
    _up("embeds", EMBEDS),
    _up("asks", ASKS),
    _up("hangs", HANGS),
    _up("bad", BAD),
    _up("empty", EMPTY),
    _up("tuning", ONE, refused("BadRequestError", 400, param="purpose"), purpose="fine-tune"),
    _of("files.retrieve", "{four[id]}", an(FileObject, id="{four[id]}")),
    _of("files.content", "{four[id]}", text(FOUR["text"])),
    _of("files.content", "{four[id]}", text(FOUR["text"][1:9]), headers={"Range": "bytes=1-8"}),
    _list("files", a_page(FileObject, 2, more=True), limit=2),
    _all("files", all_pages(FileObject, "{four[id]}"), limit=3, order="asc", purpose="batch"),
    _of("files.retrieve", NOBODYS, refused("NotFoundError", 404, param="id")),
    # A batch from its creation to its lines.
    _new("chat", "four", metadata={"team": "a"}, output_expires_after=HOUR),
    _end("chat", "completed", request_counts=COUNTS, metadata={"team": "a"}, model="m"),
    _of("get", "/batches/{chat[id]}/progress", progress(COUNTS, "{chat[output_file_id]}")),
    _of("files.content", "{chat[output_file_id]}", lines(IDS[:3], ChatCompletion)),
    _of("files.content", "{chat[error_file_id]}", refused_lines(IDS[3:], 400)),
    _of("files.retrieve", "{chat[output_file_id]}", an(FileObject, purpose="batch_output")),
    _all("files", all_pages(FileObject, "{chat[error_file_id]}"), purpose="batch_output"),
    _of("batches.cancel", "{chat[id]}", refused("BadRequestError", 400, code="invalid_status")),
    _post("retry", "chat", an(Batch, id="{chat[id]}"), codes=["bad_request"]),
    _end("chat", "completed", request_counts=COUNTS),
    # Other endpoints, and what is beyond OpenAI.
    _new("vectors", "embeds", endpoint=EMBED),
    _end("vectors", "completed"),
    _of("files.content", "{vectors[output_file_id]}", lines(IDS[:2], CreateEmbeddingResponse)),
    _new("answers", "asks", endpoint=RESPONSES, completion_window="90m", more={"priority": 7}),
    _end("answers", "completed", error_file_id=None, completion_window="90m"),
    _of("files.content", "{answers[output_file_id]}", lines(IDS[:1], Response)),
    _new("first", "one", headers=BY_KEY),
    _new("again", "one", an(Batch, id="{first[id]}"), headers=BY_KEY),
    _new("other", "four", refused("BadRequestError", 400, param=KEY), headers=BY_KEY),
    # Paused, cancelled, expired, failed.
    _new("stopped", "hangs"),
    _end("stopped", "in_progress"),
    _post("pause", "stopped", an(Batch, status="in_progress")),
    _post("resume", "stopped", an(Batch, status="in_progress")),
    _of("batches.cancel", "{stopped[id]}", an(Batch, id="{stopped[id]}")),
    _of("batches.cancel", "{stopped[id]}", an(Batch, id="{stopped[id]}")),
    _end("stopped", "cancelled", output_file_id=None),
    _of("files.content", "{stopped[error_file_id]}", unanswered_lines(IDS[1:2], "batch_cancelled")),
    _new("late", "hangs", completion_window="3s"),
    _end("late", "expired", output_file_id=None),
    _of("files.content", "{late[error_file_id]}", unanswered_lines(IDS[1:2], "batch_expired")),
    _new("wrong", "bad"),
    _end("wrong", "failed", errors=problems((1, "invalid_json_line"), (3, "duplicate_custom_id"))),
    _new("nothing", "empty"),
    _end("nothing", "failed", errors=problems((None, "empty_file"))),
    _new("nobody's", "four", refused("NotFoundError", 404), input_file_id=NOBODYS),
    _new("nowhere", "four", refused("BadRequestError", 400, param="endpoint"), endpoint="/v1/x"),
    _new("never", "four", refused("BadRequestError", 400, param=WINDOW), completion_window="soon"),
    _list("batches", a_page(Batch, 2, more=True), limit=2),
    _list("batches", a_page(Batch, 3, more=True), limit=3, after="{late[id]}"),
    _all("batches", all_pages(Batch, "{chat[id]}", "{wrong[id]}"), limit=3),
    _list("batches", refused("BadRequestError", 400, param="limit"), limit=0),
    # Deletions.
    _of("files.delete", "{four[id]}", an(FileDeleted, id="{four[id]}")),
    _of("files.delete", "{four[id]}", refused("NotFoundError", 404)),
    _of("files.content", "{four[id]}", refused("NotFoundError", 404)),
    _of("files.delete", "{chat[output_file_id]}", an(FileDeleted)),
    _of("files.content", "{chat[output_file_id]}", refused("NotFoundError", 404)),
    _of("batches.retrieve", "{chat[id]}", an(Batch, input_file_id="{four[id]}")),
)


@pytest.fixture(scope="module")
def api(fleet: Deployment) -> ApiServer:
    """A server with a tenant for each SDK."""
    return ApiServer(fleet, dict.fromkeys(DRIVERS, ""))


def _node(request: pytest.FixtureRequest, url: str, key: str) -> Driver:
    return Node(url, key, request.getfixturevalue("node"))


DRIVERS: Final[dict[str, Callable[[pytest.FixtureRequest, str, str], Driver]]] = {
    "openai-python": lambda _, url, key: Sync(url, key),
    "openai-python-async": lambda _, url, key: Async(url, key),
    "openai-node": _node,
}


@pytest.mark.parametrize("sdk", DRIVERS)
def test_forty_calls_each_answered_as_openais_own(
    sdk: str, request: pytest.FixtureRequest, api: ApiServer, provider: OpenAIServer
) -> None:
    assert len(CALLS) >= 40
    provider.fail_when("refused", status=400)
    provider.hang_when("hangs")
    seen: dict[str, Any] = {}
    with closing(DRIVERS[sdk](request, f"{api.root}/v1", api.keys[sdk])) as driver:
        for number, call in enumerate(CALLS):
            try:
                said = _carry_out(call, driver, seen)
            except (AssertionError, pydantic.ValidationError) as error:
                raise AssertionError(
                    f"call {number}, {call.method} {call.name}: {error}"
                ) from error
            if call.name and said.text:
                seen[call.name] = said.json


def _carry_out(call: Call, driver: Driver, seen: Mapping[str, Any]) -> Said:
    """Make the call, until its batch has the status that the row waits for, and check it."""

    def ask() -> Said | None:
        said = driver.ask(_asked(call, seen))
        assert (said.request_id or "").startswith("req_")
        if not call.until or said.json["status"] == call.until:
            return said
        found = check_batch(said.json)
        assert found.status not in ENDED, f"{found.status} with {found.errors}"
        return None

    said = wait_until(ask, f"{call.name} is {call.until}", timeout=60)
    assert said is not None
    call.check(said, seen)
    return said


def _asked(call: Call, seen: Mapping[str, Any]) -> Asked:
    def known(value: Any) -> Any:
        return value.format_map(seen) if isinstance(value, str) else value

    return Asked(
        call.method,
        tuple(known(each) for each in call.ids),
        {name: known(value) for name, value in call.params.items()},
        call.more,
        call.headers,
        call.pages,
    )


def test_content_streams_with_the_sync_sdk(api: ApiServer) -> None:
    with api.client("openai-python") as client:
        done = ended(client, make(client, [request(i) for i in range(3)]))
        with client.files.with_streaming_response.content(done.output_file_id) as answer:
            found = [json.loads(line)["custom_id"] for line in answer.iter_lines()]
    assert found == IDS[:3]


def test_content_streams_with_the_async_sdk(api: ApiServer) -> None:
    async def read() -> list[str]:
        key = api.keys["openai-python-async"]
        async with openai.AsyncOpenAI(base_url=f"{api.root}/v1", api_key=key) as client:
            content = jsonl(request(i) for i in range(3))
            file = await client.files.create(file=("a.jsonl", content), purpose="batch")
            async with client.files.with_streaming_response.content(file.id) as answer:
                return [json.loads(line)["custom_id"] async for line in answer.iter_lines()]

    assert asyncio.run(read()) == IDS[:3]
