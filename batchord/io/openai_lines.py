"""Lines of the files of OpenAI's Batch API, and of vLLM's `run-batch`: requests in, answers out.

In: `{"custom_id", "method": "POST", "url": "/v1/...", "body": {...}}`. Out, in input order:
`{"id", "custom_id", "response": {"status_code", "request_id", "body"} | null, "error": {"code",
"message"} | null}`. What got an answer over HTTP, good or bad, has a `response` whose body is an
object; only what got none has an `error`.
"""

import json
from typing import Any, Final

from pydantic import ValidationError

from batchord.chains.errors import BatchordError
from batchord.chains.steps.raw_request import Attempts, RequestLine
from batchord.io.input_file import InputFile
from batchord.io.json_lines import InputLines
from batchord.ledger.core.json_values import encode
from batchord.ledger.errors import SubmitRefused, ValueRejected
from batchord.ledger.models import Item, ItemStatus
from batchord.ledger.settings import Settings
from batchord.producer.inputs import MAX_CUSTOM_ID, is_text

#: OpenAI's codes for requests that have not been made.
_NOT_MADE: Final = {
    ItemStatus.CANCELLED: ("batch_cancelled", "The batch was cancelled before this request ran."),
    ItemStatus.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
}


#: What a line says of its request.
_LINE: Final = ("url", "body", "method")


class NotAnswers(BatchordError):
    """The outputs are no answers to requests: write them as JSON lines."""


def requests(
    file: InputFile,
    settings: Settings,
    *,
    model: str | None = None,
    attempts: Attempts | None = None,
) -> InputLines:
    """Check all lines, and return them as inputs of a chain of `Request`.

    A request that cannot be made (another url, a stream) is the error of its line, later; the
    others are made. `model` stands in for the ones that the lines name, and `attempts` goes with
    each. A pipe is kept in a temporary file without a name.

    Raises:
        SubmitRefused: a line is not as it must be; the message names it and says what to do.
    """
    file.keep()
    seen: set[str] = set()
    for number, value in file:
        found, custom_id = _request(number, value)
        if custom_id in seen:
            raise SubmitRefused(
                f"line {number}: the custom_id {custom_id[:80]!r} is there already: each line "
                "needs one of its own"
            )
        seen.add(custom_id)
        try:
            encode(found, max_bytes=settings.max_input_bytes, setting="BATCHORD_MAX_INPUT_BYTES")
        except ValueRejected as error:
            raise ValueRejected(f"line {number}: {error}", code=error.code) from None
    if not seen:
        raise SubmitRefused("no requests: a batch needs at least one")

    def reading(number: int, value: Any) -> tuple[Any, str]:
        found, custom_id = _request(number, value)
        if model is not None:
            found["body"] = {**found["body"], "model": model}
        if attempts is not None and (given := attempts.model_dump(exclude_none=True)):
            found["attempts"] = given
        return found, custom_id

    return InputLines(file, reading)


def is_error(item: Item) -> bool:
    """Whether its line belongs into the file of errors."""
    return item.status is not ItemStatus.SUCCEEDED


def line(batch_id: str, item: Item) -> str:
    """Return the answer as a line.

    Raises:
        NotAnswers: the item is not of a chain of `Request`.
    """
    fields = {"id": f"{batch_id}:{item.index}", "custom_id": item.custom_id, **outcome(item)}
    return json.dumps(fields, ensure_ascii=False) + "\n"


def outcome(item: Item) -> dict[str, Any]:
    """Return the `response` and the `error` of an item that has ended.

    Raises:
        NotAnswers: the item is not of a chain of `Request`.
    """
    if is_error(item):
        return _error(item)
    if _is_answer(item.output):
        return {"response": item.output, "error": None}
    raise NotAnswers(
        f"the output of item {item.index} is no answer to a request, so that there is no line "
        "of OpenAI's for it: use --format jsonl"
    )


def gist(output: Any) -> Any:
    """Return what a person looks for in an answer: its text, else its body; else the output."""
    if not _is_answer(output):
        return output
    body = output["body"]
    try:
        choice = body["choices"][0]
        return choice["message"]["content"] if "message" in choice else choice["text"]
    except (LookupError, TypeError):
        return body


def _request(number: int, value: Any) -> tuple[dict[str, Any], str]:
    """Return the input and the custom_id of a line."""
    if not isinstance(value, dict) or "url" not in value or "body" not in value:
        raise SubmitRefused(
            f"line {number} is not a request of OpenAI's Batch API ({{custom_id, method, url, "
            "body}): mend it, or name the CHAIN that takes such inputs"
        )
    custom_id = value.get("custom_id")
    if not is_text(custom_id, MAX_CUSTOM_ID):
        raise SubmitRefused(
            f"line {number}: custom_id must be there, a text of 1 to {MAX_CUSTOM_ID} characters"
        )
    if "method" not in value:
        raise SubmitRefused(f'line {number}: method must be there, and "POST"')
    try:
        request = RequestLine.model_validate({name: value.get(name) for name in _LINE})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise SubmitRefused(f"line {number}: {place}: {first['msg']}") from None
    if request.method != "POST":
        raise SubmitRefused(
            f"line {number}: method: {request.method[:80]!r} is not supported: requests are POST"
        )
    return {"url": request.url, "body": request.body}, str(custom_id)


def _is_answer(output: Any) -> bool:
    return isinstance(output, dict) and output.keys() == {"status_code", "request_id", "body"}


def _error(item: Item) -> dict[str, Any]:
    error = item.error
    if error is None:
        code, message = _NOT_MADE.get(
            item.status, (item.status.value, f"The request is {item.status.value}.")
        )
        return {"response": None, "error": {"code": code, "message": message}}
    answer = _answer_in(error.raw)
    if answer is None and error.http_status is None:
        return {"response": None, "error": {"code": error.code, "message": error.message}}
    if answer is None:
        answer = {"status_code": error.http_status, "request_id": None, "body": None}
    if not isinstance(answer["body"], dict):
        # A page of HTML, say, or nothing: readers of OpenAI's files look for `body.error.message`.
        said = {"message": error.message, "type": error.code, "param": None, "code": error.code}
        answer = {**answer, "body": {"error": said}}
    return {"response": answer, "error": None}


def _answer_in(raw: str | None) -> dict[str, Any] | None:
    """Return the answer in an error's `raw`; None if it is invalid or was cut off."""
    try:
        answer = json.loads(raw or "null")
    except (ValueError, RecursionError):
        return None
    return answer if _is_answer(answer) else None
