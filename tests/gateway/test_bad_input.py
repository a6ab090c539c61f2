"""Bad input of all kinds: each gets OpenAI's kind of error, and leaves nothing behind."""

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.conftest import Deploy
from tests.support.api_server import CHAT, ApiServer, jsonl, request
from tests.support.harness import Deployment, wait_until

pytestmark = pytest.mark.timeout(120)

LINES = 50
FILE_BYTES = 100_000
LINE_BYTES = 20_000

#: What a request of these tests is sent with.
Http = httpx2.Client


@pytest.fixture(scope="module")
def idle(deploy_for_module: Deploy) -> Deployment:
    """A deployment without workers: what is refused needs none."""
    return deploy_for_module(
        file_max_bytes=FILE_BYTES, file_max_lines=LINES, file_line_bytes=LINE_BYTES
    )


@pytest.fixture(scope="module")
def strict(idle: Deployment) -> ApiServer:
    return ApiServer(idle, {"ann": "", "bob": ""})


@pytest.fixture(scope="module")
def http(strict: ApiServer) -> Iterator[Http]:
    headers = {"Authorization": f"Bearer {strict.keys['ann']}"}
    with Http(base_url=f"{strict.root}/v1", headers=headers, timeout=60) as http:
        yield http


def _upload(http: Http, content: bytes, *, name: str = "a.jsonl", **fields: Any) -> httpx2.Response:
    data = {"purpose": "batch", **fields}
    return http.post("/files", data=data, files={"file": (name, content)})


def _create(http: Http, **changes: Any) -> httpx2.Response:
    """Create a batch of a good file; `changes` stand in for arguments, or take them away."""
    file = _upload(http, jsonl([request(0)])).json()
    body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", **changes}
    try:
        said = {k: v for k, v in body.items() if v is not None}
        # All but ASCII escaped, so that it may be what no text can be.
        return _raw(http, "/batches", json.dumps(said).encode(), "application/json")
    finally:
        http.delete(f"/files/{file['id']}")


def _raw(http: Http, path: str, content: bytes, kind: str, **headers: str) -> httpx2.Response:
    return http.post(path, content=content, headers={"Content-Type": kind, **headers})


_BOUNDARY = "multipart/form-data; boundary=b"
_HALF = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{"a":'
)
_TWO = {f"key{i}": "v" for i in range(17)}
_NAN = float("nan")
_FOREIGN = "file-0123456789abcdef01234567"


class Refused(NamedTuple):
    """A request, and the answer that it must get."""

    ask: Callable[[Http], httpx2.Response]
    status: int = 400
    param: str | None = None
    code: str | None = None


REFUSED: dict[str, Refused] = {
    # The key.
    "no key": Refused(lambda h: h.get("/files", headers={"Authorization": ""}), 401),
    "another scheme": Refused(lambda h: h.get("/files", headers={"Authorization": "Basic a"}), 401),
    "an unknown key": Refused(
        lambda h: h.get("/batches", headers={"Authorization": "Bearer sk-x"}),
        401,
        None,
        "invalid_api_key",
    ),
    # Uploads.
    "201 MB, scaled down": Refused(
        lambda h: _upload(h, b"x" * (FILE_BYTES + 1)), 413, "file", "file_too_large"
    ),
    "201 MB, by far": Refused(
        lambda h: _upload(h, b"x" * (40 * FILE_BYTES)), 413, "file", "file_too_large"
    ),
    "wrong purpose": Refused(
        lambda h: _upload(h, b"{}", purpose="fine-tune"), 400, "purpose", "invalid_value"
    ),
    "no purpose": Refused(
        lambda h: h.post("/files", files={"file": ("a.jsonl", b"{}")}), 400, "purpose"
    ),
    "no file": Refused(
        lambda h: h.post("/files", files={"purpose": (None, b"batch")}), 400, "file"
    ),
    "a text for a file, as curl sends it without @": Refused(
        lambda h: h.post("/files", files={"purpose": (None, b"batch"), "file": (None, b"{}")}),
        400,
        "file",
    ),
    "two files": Refused(
        lambda h: h.post(
            "/files", files=[("file", ("a.jsonl", b"{}")), ("file", ("b.jsonl", b"{}"))]
        ),
        400,
        "file",
    ),
    "another suffix": Refused(
        lambda h: _upload(h, b"{}", name="a.csv"), 400, "file", "invalid_file_format"
    ),
    "a path with another suffix": Refused(
        lambda h: _upload(h, b"{}", name="../../etc/passwd.txt"), 400, "file"
    ),
    "half a multipart": Refused(lambda h: _raw(h, "/files", _HALF, _BOUNDARY), 400, "file"),
    "no multipart": Refused(lambda h: _raw(h, "/files", b"{}", _BOUNDARY), 400),
    "no boundary": Refused(lambda h: _raw(h, "/files", b"{}", "multipart/form-data"), 400),
    "JSON for a file": Refused(lambda h: h.post("/files", json={"file": "a"}), 415),
    "a gzipped upload": Refused(
        lambda h: _raw(
            h, "/files", gzip.compress(_HALF), _BOUNDARY, **{"Content-Encoding": "gzip"}
        ),
        415,
    ),
    "a short life": Refused(
        lambda h: _upload(
            h, b"{}", **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "1"}
        ),
        400,
        "expires_after[seconds]",
    ),
    "another anchor": Refused(
        lambda h: _upload(
            h, b"{}", **{"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}
        ),
        400,
        "expires_after[anchor]",
    ),
    "a life in words": Refused(
        lambda h: _upload(
            h, b"{}", **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "1h"}
        ),
        400,
        "expires_after[seconds]",
    ),
    # Ids.
    "an unknown file": Refused(lambda h: h.get(f"/files/{_FOREIGN}"), 404),
    "an unknown content": Refused(lambda h: h.get(f"/files/{_FOREIGN}/content"), 404),
    "a path for a file": Refused(lambda h: h.get("/files/..%2f..%2fkeys.toml/content"), 404),
    "an unknown batch": Refused(lambda h: h.get("/batches/batch_" + 24 * "0"), 404),
    "a word for a batch": Refused(lambda h: h.post("/batches/latest/cancel"), 404),
    "an unknown url": Refused(lambda h: h.get("/models"), 404),
    "another method": Refused(lambda h: h.put("/files", content=b""), 405),
    # Pages.
    "no page": Refused(lambda h: h.get("/files?limit=0"), 400, "limit"),
    "a page too large": Refused(lambda h: h.get("/batches?limit=101"), 400, "limit"),
    "a page in words": Refused(lambda h: h.get("/batches?limit=all"), 400, "limit"),
    "behind what is not there": Refused(lambda h: h.get("/batches?after=batch_1"), 400, "after"),
    "another order": Refused(lambda h: h.get("/files?order=random"), 400, "order"),
    # Batches.
    "no JSON": Refused(lambda h: _raw(h, "/batches", b"{", "application/json"), 400),
    "a list": Refused(lambda h: h.post("/batches", json=[1]), 400),
    "a gzipped body": Refused(
        lambda h: _raw(h, "/batches", b"", "application/json", **{"Content-Encoding": "gzip"}), 415
    ),
    "no input": Refused(lambda h: _create(h, input_file_id=None), 400, "input_file_id"),
    "an input that is not there": Refused(lambda h: _create(h, input_file_id=_FOREIGN), 404),
    "an endpoint that nobody has": Refused(
        lambda h: _create(h, endpoint="/v1/videos"), 400, "endpoint", "invalid_value"
    ),
    "no window": Refused(lambda h: _create(h, completion_window=None), 400, "completion_window"),
    "a window in words": Refused(
        lambda h: _create(h, completion_window="soon"), 400, "completion_window"
    ),
    "17 pairs": Refused(lambda h: _create(h, metadata=_TWO), 400, "metadata"),
    "metadata of numbers": Refused(lambda h: _create(h, metadata={"a": 1}), 400, "metadata"),
    "metadata as a list": Refused(lambda h: _create(h, metadata=["a"]), 400, "metadata"),
    "outputs for ever": Refused(
        lambda h: _create(h, output_expires_after={"anchor": "created_at", "seconds": 10**9}),
        400,
        "output_expires_after[seconds]",
    ),
    "an unknown parameter": Refused(
        lambda h: _create(h, max_concurency=3), 400, "max_concurency", "unknown_parameter"
    ),
    "a priority out of bounds": Refused(lambda h: _create(h, priority=11), 400, "priority"),
    "a budget of nothing": Refused(lambda h: _create(h, budget={"usd": 0}), 400, "budget"),
    "a budget in words": Refused(lambda h: _create(h, budget="little"), 400, "budget"),
    "half a character as metadata": Refused(lambda h: _create(h, metadata={"a": "\ud800"}), 400),
    "half a character as a parameter": Refused(lambda h: _create(h, **{"\ud800": 1}), 400),
    "half a character as a file": Refused(lambda h: _create(h, input_file_id="\ud800"), 400),
    "half a character as an endpoint": Refused(lambda h: _create(h, endpoint="\ud800"), 400),
    "a budget that is not a number": Refused(lambda h: _create(h, budget={"usd": _NAN}), 400),
    "a window in other digits": Refused(
        lambda h: _create(h, completion_window="\uff11h"), 400, "completion_window"
    ),
    "a slash at the end": Refused(lambda h: h.get("/files/", follow_redirects=True), 404),
    "dedupe in words": Refused(lambda h: _create(h, dedupe="yes"), 400, "dedupe"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_is_refused_in_openais_words_and_leaves_nothing(
    name: str, http: Http, strict: ApiServer, idle: Deployment
) -> None:
    case = REFUSED[name]
    before = idle.redis.keys("*:api:*"), strict.files

    answer = case.ask(http)

    assert answer.status_code == case.status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert (case.param or error["param"]) == error["param"]
    assert (case.code or error["code"]) == error["code"]
    assert answer.headers["x-request-id"].startswith("req_")
    assert (idle.redis.keys("*:api:*"), strict.files) == before


def _without(name: str) -> str:
    return json.dumps({k: v for k, v in request(1).items() if k != name})


def _body(**more: Any) -> dict[str, Any]:
    return request(1, body={"model": "m", "messages": [], **more})


class Failed(NamedTuple):
    """A file, and the problem that its batch must end with."""

    content: bytes
    code: str
    line: int | None
    param: str | None = None


_GOOD = request(0)

FAILED: dict[str, Failed] = {
    "0 bytes": Failed(b"", "empty_file", None),
    "blank lines alone": Failed(b"\n \n\r\n", "empty_file", None),
    "one line too many": Failed(
        jsonl(request(i) for i in range(LINES + 1)), "too_many_tasks", None
    ),
    "not JSON": Failed(jsonl([_GOOD, "{"]), "invalid_json_line", 2),
    "not an object": Failed(jsonl([_GOOD, [1]]), "invalid_json_line", 2),
    "NaN": Failed(jsonl([_GOOD, json.dumps(_body(n=float("nan")))]), "invalid_json_line", 2),
    "a lone surrogate": Failed(jsonl([_body(n="\ud800")]), "invalid_json_line", 1, "body"),
    "too deep": Failed(jsonl(['{"a":' * 2_000 + "1" + "}" * 2_000]), "invalid_json_line", 1),
    "nested 200 times": Failed(
        jsonl([_body(n=json.loads("[" * 200 + "]" * 200))]), "invalid_json_line", 1, "body"
    ),
    "gzip": Failed(gzip.compress(jsonl([_GOOD])), "invalid_json_line", 1),
    "UTF-16": Failed(json.dumps(_GOOD).encode("utf-16"), "invalid_json_line", 1),
    "Latin-1": Failed(b'{"custom_id": "\xe9"}\n', "invalid_json_line", 1),
    "a long line": Failed(jsonl([_GOOD, _body(n="x" * LINE_BYTES)]), "line_too_large", 2),
    "the same custom_id": Failed(jsonl([_GOOD, _GOOD]), "duplicate_custom_id", 2, "custom_id"),
    "no custom_id": Failed(
        jsonl([_without("custom_id")]), "missing_required_parameter", 1, "custom_id"
    ),
    "an empty custom_id": Failed(
        jsonl([request(1, custom_id="")]), "invalid_custom_id", 1, "custom_id"
    ),
    "a custom_id of a number": Failed(
        jsonl([request(1, custom_id=7)]), "invalid_custom_id", 1, "custom_id"
    ),
    "no body": Failed(jsonl([_without("body")]), "missing_required_parameter", 1, "body"),
    "a body of text": Failed(jsonl([request(1, body="hi")]), "invalid_body", 1, "body"),
    "no url": Failed(jsonl([_without("url")]), "missing_required_parameter", 1, "url"),
    "another url": Failed(
        jsonl([_GOOD, request(1, url="/v1/embeddings")]), "url_mismatch", 2, "url"
    ),
    "no method": Failed(jsonl([_without("method")]), "missing_required_parameter", 1, "method"),
    "another method": Failed(jsonl([request(1, method="GET")]), "invalid_method", 1, "method"),
    "a stream": Failed(jsonl([_body(stream=True)]), "invalid_body", 1, "body.stream"),
}


@pytest.mark.parametrize("name", FAILED)
def test_a_bad_file_fails_its_batch_which_names_line_and_code(
    name: str, http: Http, idle: Deployment
) -> None:
    case = FAILED[name]
    batch = _of_file(http, case.content)

    assert batch["status"] == "failed", batch
    assert batch["failed_at"] >= batch["created_at"]
    assert batch["errors"]["object"] == "list"
    problem, *others = batch["errors"]["data"]
    assert not others or name == "gzip", others
    assert problem.keys() == {"code", "line", "message", "param"}
    assert (problem["code"], problem["line"], problem["param"]) == case[1:]
    assert problem["message"]
    assert batch["output_file_id"] is None
    assert batch["error_file_id"] is None
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    left = [key for key in idle.keys_of(batch["id"]) if ":api:" not in key]
    owed = f"batchord:{{{batch['id']}}}:outbox"
    assert left in ([owed], []), "the ledger has nothing but the webhook that it owes"


def test_all_bad_lines_are_named_at_once(http: Http) -> None:
    batch = _of_file(http, jsonl([_GOOD, "{", "", _GOOD, request(2, method="PUT")]))
    found = [(each["line"], each["code"]) for each in batch["errors"]["data"]]
    assert found == [(2, "invalid_json_line"), (4, "duplicate_custom_id"), (5, "invalid_method")]


_TEXT = json.dumps(_GOOD)

GOOD: dict[str, bytes] = {
    "a byte order mark": b"\xef\xbb\xbf" + _TEXT.encode(),
    "CRLF": f"{_TEXT}\r\n{json.dumps(request(1))}\r\n".encode(),
    "no newline at the end": _TEXT.encode(),
    "blank lines": f"\n\n{_TEXT}\n  \n".encode(),
    "a null beside": json.dumps({**_GOOD, "note": None}).encode(),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_read_is_taken(name: str, http: Http) -> None:
    batch = _of_file(http, GOOD[name])
    assert batch["status"] == "in_progress", batch["errors"]
    http.post(f"/batches/{batch['id']}/cancel")


def _of_file(http: Http, content: bytes) -> dict[str, Any]:
    """Make a batch of the file, and return it once it is validated."""
    file = _upload(http, content).json()
    asked = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    batch = http.post("/batches", json=asked).json()

    def look() -> Any:
        found = http.get(f"/batches/{batch['id']}").json()
        return found if found["status"] != "validating" else None

    found: dict[str, Any] = wait_until(look, "it is validated", timeout=60)
    http.delete(f"/files/{file['id']}")
    return found


def test_a_name_like_a_path_is_a_name(http: Http, strict: ApiServer) -> None:
    for name in ("../../etc/passwd.jsonl", "C:\\x\\passwd.jsonl", "/etc/passwd.jsonl"):
        file = _upload(http, b"{}", name=name).json()
        assert file["filename"] == "passwd.jsonl"
        assert file["id"] in strict.files
        http.delete(f"/files/{file['id']}")
    wait_until(lambda: not strict.files, "no file of these tests is left")
