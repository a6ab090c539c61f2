"""Validation of an input file: each line that cannot be a request is named, with a code."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import IO, Any, Final, NamedTuple

from batchord.ledger.core.json_values import encode
from batchord.ledger.errors import ValueRejected
from batchord.ledger.settings import Settings
from batchord.ledger.storage.api_batches import ApiBatch
from batchord.producer.inputs import MAX_CUSTOM_ID, is_text

#: Problems that are told; the rest of the file is not read.
MOST_PROBLEMS: Final = 100

_BOM: Final = b"\xef\xbb\xbf"
_NOT_JSON: Final = "This line is not parseable as valid JSON."


class Problem(Exception):
    """A reason why a file cannot be a batch; `line` from 1, None: it is about all of it."""

    def __init__(
        self, code: str, message: str, *, line: int | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.line, self.param = code, message, line, param

    def fields(self) -> dict[str, Any]:
        """Return it as an entry of the batch's `errors.data`."""
        return {
            "code": self.code,
            "line": self.line,
            "message": self.message,
            "param": self.param,
        }


class RawLine(NamedTuple):
    """A line that is not empty."""

    number: int
    #: Where it begins in the file.
    offset: int
    #: None: it is longer than a line may be.
    text: bytes | None


class RequestOf(NamedTuple):
    """A line that can be a request."""

    custom_id: str
    body: dict[str, Any]


def raw_lines(file: IO[bytes], most: int) -> Iterator[RawLine]:
    """Yield the lines of a file but the empty ones, each of up to `most` bytes."""
    offset, number = 0, 0
    while text := file.readline(most + 2):
        number += 1
        begin, offset = offset, offset + len(text)
        too_long = len(text) > most and not text.endswith(b"\n")
        while too_long and (more := file.readline(2**20)):
            offset += len(more)
            if more.endswith(b"\n"):
                break
        if number == 1 and text.startswith(_BOM):
            begin, text = begin + len(_BOM), text[len(_BOM) :]
        if text and (too_long or not text.isspace()):
            yield RawLine(number, begin, None if too_long else text)


def read_line(line: RawLine, endpoint: str, settings: Settings) -> RequestOf:
    """Return the request of a line; raise Problem if it cannot be one."""
    number = line.number
    if line.text is None:
        most = f"{settings.file_line_bytes:,}"
        raise Problem("line_too_large", f"The line is longer than {most} bytes.", line=number)
    value = _json(number, line.text)
    if not isinstance(value, dict):
        raise Problem("invalid_json_line", "The line is not a JSON object.", line=number)
    custom_id = _required(value, "custom_id", number)
    if not is_text(custom_id, MAX_CUSTOM_ID):
        what = f"custom_id must be a text of 1 to {MAX_CUSTOM_ID} characters."
        raise Problem("invalid_custom_id", what, line=number, param="custom_id")
    if (method := _required(value, "method", number)) != "POST":
        what = f"The method must be POST, not {str(method)[:80]!r}."
        raise Problem("invalid_method", what, line=number, param="method")
    if (url := _required(value, "url", number)) != endpoint:
        what = f"The url {str(url)[:80]!r} is not the endpoint of the batch, {endpoint!r}."
        raise Problem("url_mismatch", what, line=number, param="url")
    body = _required(value, "body", number)
    if not isinstance(body, dict):
        raise Problem("invalid_body", "The body must be an object.", line=number, param="body")
    if body.get("stream"):
        what = "A batch never streams: leave out stream."
        raise Problem("invalid_body", what, line=number, param="body.stream")
    _check_recordable(number, body, settings)
    return RequestOf(str(custom_id), body)


@dataclass
class FileCheck:
    """The validation of one input file, line by line."""

    batch: ApiBatch
    settings: Settings
    problems: list[Problem] = field(default_factory=list)
    #: Requests, and the models that they name.
    count: int = 0
    models: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)

    def take(self, line: RawLine) -> bool:
        """Look at the next line; False: the rest of the file need not be read."""
        self.count += 1
        if self.count > self.settings.file_max_lines:
            most = f"{self.settings.file_max_lines:,}"
            self.problems = [
                Problem("too_many_tasks", f"The file has more than {most} requests: split it.")
            ]
            return False
        try:
            self._look_at(line, read_line(line, self.batch.endpoint, self.settings))
        except Problem as problem:
            self.problems.append(problem)
        return len(self.problems) < MOST_PROBLEMS

    def end(self) -> list[dict[str, Any]]:
        """Return all problems that were found, as the batch's `errors.data`."""
        if not self.count:
            self.problems.append(Problem("empty_file", "The file has no requests."))
        return [problem.fields() for problem in self.problems]

    @property
    def model(self) -> str:
        """The model that all requests name; empty if there are several, or none."""
        return next(iter(self.models)) if len(self.models) == 1 else ""

    def _look_at(self, line: RawLine, request: RequestOf) -> None:
        if request.custom_id in self._seen:
            what = f"The custom_id {request.custom_id[:80]!r} is there already."
            raise Problem("duplicate_custom_id", what, line=line.number, param="custom_id")
        self._seen.add(request.custom_id)
        model = str(request.body.get("model") or "")
        if len(self.models) < 2:
            self.models.add(model)
        allowed = self.batch.options.get("models")
        if allowed is not None and not any(fnmatchcase(model, each) for each in allowed):
            what = f"The model {model[:80]!r} is not one that this key may use."
            raise Problem("model_not_allowed", what, line=line.number, param="body.model")


def _json(number: int, text: bytes) -> Any:
    try:
        return json.loads(text.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Problem("invalid_json_line", _NOT_JSON, line=number) from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _required(value: dict[str, Any], name: str, number: int) -> Any:
    if value.get(name) is None:
        what = f"Missing required parameter: '{name}'."
        raise Problem("missing_required_parameter", what, line=number, param=name)
    return value[name]


def _check_recordable(number: int, body: dict[str, Any], settings: Settings) -> None:
    """Raise Problem if the ledger does not take the body: lone surrogates, or too deep."""
    try:
        encode(body, max_bytes=settings.max_input_bytes, setting="BATCHORD_FILE_LINE_BYTES")
    except ValueRejected as error:
        code = "line_too_large" if error.code == "too_large" else "invalid_json_line"
        raise Problem(code, f"The body is {error}.", line=number, param="body") from None
