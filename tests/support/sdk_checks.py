"""Answers of `batchord serve` against the SDK's own types, strictly, and against OpenAI's contract.

Each function of `CHECKS` and below returns a check of one answer: `check(said, seen)`, where `seen`
has the answers so far by the name of their call.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pydantic
from openai.types import Batch, ErrorObject, FileDeleted, FileObject

from tests.support.sdk_drivers import Said

Check = Callable[[Said, Mapping[str, Any]], None]

#: Keys beyond the SDK's type: ours, and those that OpenAI has and the SDK's type has not.
BEYOND: Final[dict[type, set[str]]] = {Batch: {"batchord"}}
#: Keys that the SDK's type has and OpenAI leaves out, too.
MAY_MISS: Final[dict[type, set[str]]] = {ErrorObject: {"misalignment"}}

#: The times of a batch in each status: those that are set, and those that may be, too.
TIMES: Final[dict[str, tuple[set[str], set[str]]]] = {
    "validating": (set(), set()),
    "failed": ({"failed_at"}, set()),
    "in_progress": ({"in_progress_at"}, set()),
    "finalizing": ({"in_progress_at", "finalizing_at"}, set()),
    "completed": ({"in_progress_at", "finalizing_at", "completed_at"}, set()),
    "expired": ({"in_progress_at", "expired_at"}, {"finalizing_at"}),
    "cancelling": ({"cancelling_at"}, {"in_progress_at"}),
    "cancelled": ({"cancelling_at", "cancelled_at"}, {"in_progress_at", "finalizing_at"}),
}
ENDED: Final = ("failed", "completed", "expired", "cancelled")
#: Times in the order in which they come.
ORDER: Final = (
    *("created_at", "in_progress_at", "cancelling_at", "finalizing_at"),
    *("completed_at", "failed_at", "expired_at", "cancelled_at"),
)


def strictly(kind: type[pydantic.BaseModel], raw: Any) -> Any:
    """Return the object of the SDK's type; an unknown or missing key, or another type, raises."""
    made = kind.model_validate_json(json.dumps(raw), strict=True)
    _no_key_less_or_more(made)
    return made


def _no_key_less_or_more(made: Any) -> None:
    if isinstance(made, list):
        for each in made:
            _no_key_less_or_more(each)
    if not isinstance(made, pydantic.BaseModel):
        return
    kind = type(made)
    more = (made.model_extra or {}).keys() - BEYOND.get(kind, set())
    less = kind.model_fields.keys() - made.model_fields_set - MAY_MISS.get(kind, set())
    assert not more, f"{kind.__name__} has unknown keys: {more}"
    assert not less, f"{kind.__name__} lacks keys: {less}"
    for name in kind.model_fields:
        _no_key_less_or_more(getattr(made, name))


def check_batch(raw: Any) -> Any:
    """Check what holds for each batch object, whatever its status; return it."""
    batch = strictly(Batch, raw)
    must, may = TIMES[batch.status]
    times = {name: getattr(batch, name) for name in ORDER}
    there = {name for name, when in times.items() if when is not None} - {"created_at"}
    assert must <= there <= must | may, f"{batch.status} with {there}"
    known = [when for when in times.values() if when is not None]
    assert known == sorted(known), times
    assert batch.expires_at is not None
    assert batch.expires_at > batch.created_at
    assert min(known) > 1_700_000_000, "seconds since 1970"
    _check_files(batch)
    assert (batch.errors is not None) is (batch.status == "failed")
    assert raw["batchord"].keys() == {"paused", "reason"}
    return batch


def _check_files(batch: Any) -> None:
    counts = batch.request_counts
    if batch.status in ("validating", "failed"):
        assert (counts.total, counts.completed, counts.failed) == (0, 0, 0)
    if batch.status == "completed":
        assert counts.completed + counts.failed == counts.total > 0
    if batch.status not in ENDED or batch.status == "failed":
        assert (batch.output_file_id, batch.error_file_id) == (None, None)
    else:
        assert (batch.output_file_id is not None) is (counts.completed > 0)
        assert (batch.error_file_id is not None) is (counts.completed < counts.total)


def check_file(raw: Any) -> Any:
    """Check what holds for each file object; return it."""
    file = strictly(FileObject, raw)
    assert (file.status, file.status_details) == ("processed", None)
    assert file.id.startswith("file-")
    assert file.created_at > 1_700_000_000
    assert file.expires_at is None or file.expires_at > file.created_at
    return file


def check_deleted(raw: Any) -> Any:
    """Check the answer to a deletion; return it."""
    deleted = strictly(FileDeleted, raw)
    assert deleted.deleted is True
    return deleted


CHECKS: Final[dict[type, Callable[[Any], Any]]] = {
    Batch: check_batch,
    FileObject: check_file,
    FileDeleted: check_deleted,
}


def _matches(raw: Any, wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
    """Raise unless the object has these values, or they check its own.

    Texts may name earlier answers.
    """
    for name, value in wanted.items():
        if callable(value):
            value(raw[name])
            continue
        said = value.format_map(seen) if isinstance(value, str) else value
        assert raw[name] == said, f"{name}: {raw[name]!r}, not {said!r}"


def an(kind: type, **wanted: Any) -> Check:
    """An object of the SDK's type, with these values."""

    def check(said: Said, seen: Mapping[str, Any]) -> None:
        CHECKS[kind](said.json)
        _matches(said.json, wanted, seen)

    return check


def a_page(kind: type, count: int, *, more: bool) -> Check:
    """One page of a list."""

    def check(said: Said, _: Mapping[str, Any]) -> None:
        page = said.json
        assert page.keys() == {"object", "data", "first_id", "last_id", "has_more"}
        for each in page["data"]:
            CHECKS[kind](each)
        ids = [each["id"] for each in page["data"]]
        assert (page["object"], len(ids), page["has_more"]) == ("list", count, more)
        assert [page["first_id"], page["last_id"]] == ([ids[0], ids[-1]] if ids else [None, None])

    return check


def all_pages(kind: type, *names: str) -> Check:
    """All entries of a list, in which these ids are, each once; texts may name earlier answers."""

    def check(said: Said, seen: Mapping[str, Any]) -> None:
        for each in said.entries:
            CHECKS[kind](each)
        ids = [each["id"] for each in said.entries]
        assert len(ids) == len(set(ids))
        assert {name.format_map(seen) for name in names} <= set(ids)

    return check


def lines(custom_ids: Sequence[str], kind: type[pydantic.BaseModel]) -> Check:
    """An output file: a line for each of these, in this order, with a body of the SDK's type."""

    def check(said: Said, _: Mapping[str, Any]) -> None:
        found = _lines(said.text, custom_ids)
        for line in found:
            assert line["error"] is None
            assert line["response"].keys() == {"status_code", "request_id", "body"}
            assert line["response"]["status_code"] == 200
            kind.model_validate(line["response"]["body"])

    return check


def refused_lines(custom_ids: Sequence[str], status: int) -> Check:
    """An error file of requests that got an HTTP answer: `response`, and `error: null`."""

    def check(said: Said, _: Mapping[str, Any]) -> None:
        for line in _lines(said.text, custom_ids):
            assert (line["error"], line["response"]["status_code"]) == (None, status)
            ErrorObject.model_validate(line["response"]["body"]["error"])

    return check


def unanswered_lines(custom_ids: Sequence[str], code: str) -> Check:
    """An error file of requests that got no answer: `error`, and `response: null`."""

    def check(said: Said, _: Mapping[str, Any]) -> None:
        for line in _lines(said.text, custom_ids):
            assert line["response"] is None
            assert line["error"].keys() == {"code", "message"}
            assert line["error"]["code"] == code
            assert line["error"]["message"]

    return check


def _lines(text: str, custom_ids: Iterable[str]) -> list[Any]:
    found = [json.loads(line) for line in text.splitlines()]
    assert [line["custom_id"] for line in found] == list(custom_ids)
    assert len({line["id"] for line in found}) == len(found)
    for line in found:
        assert line.keys() == {"id", "custom_id", "response", "error"}
        assert line["id"].startswith("batch_req_")
    return found


def text(wanted: str) -> Check:
    """A file of this text, or a part of one."""

    def check(said: Said, _: Mapping[str, Any]) -> None:
        assert said.text == wanted

    return check


def refused(name: str, status: int, **wanted: Any) -> Check:
    """An error of the SDK's class, in OpenAI's envelope, with these values."""

    def check(said: Said, seen: Mapping[str, Any]) -> None:
        assert (said.refused, said.status) == (name, status), said
        strictly(ErrorObject, said.error)
        _matches(said.error, wanted, seen)

    return check


def problems(*wanted: tuple[int | None, str]) -> Callable[[Any], None]:
    """Return a check of the `errors` of a failed batch: line and code of each."""

    def check(errors: Any) -> None:
        assert errors["object"] == "list"
        assert [(each["line"], each["code"]) for each in errors["data"]] == list(wanted)

    return check


def progress(counts: Mapping[str, int], output: str) -> Check:
    """Return a check of the progress of a batch."""

    def check(said: Said, seen: Mapping[str, Any]) -> None:
        _matches(said.json, {"object": "batch.progress", "request_counts": counts}, seen)
        _matches(said.json, {"output_file_id": output}, seen)

    return check
