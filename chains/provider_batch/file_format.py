"""The lines of OpenAI's batch files: requests that go in, and answers that come out."""

import json
import re

from pydantic import BaseModel, JsonValue, ValidationError

from batchord.chains.errors import ChainError, RetryLater
from batchord.chains.explain import MAX_RAW, whole_text
from batchord.chains.openai.error_body import said_in, text_of

_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*("(?:[^"\\]|\\.)*")')

#: Errors of lines that were not run: by themselves they may succeed.
_NOT_RUN = {"batch_expired", "batch_cancelled"}


class Answered(BaseModel, frozen=True):
    """The provider's answer to one request."""

    status_code: int
    request_id: str | None = None
    body: JsonValue = None


class LineError(BaseModel, frozen=True):
    """Why a request was not run."""

    code: str | None = None
    message: str | None = None


class Answer(BaseModel, frozen=True):
    """A line of an output file, or of an error file."""

    id: str | None = None
    custom_id: str
    response: Answered | None = None
    error: LineError | None = None


def request_line(custom_id: str, url: str, body: str) -> bytes:
    """Format the line, with its line end, of a request with this JSON body."""
    name = json.dumps(custom_id, ensure_ascii=False)
    head = f'{{"custom_id": {name}, "method": "POST", "url": "{url}", "body": '
    return f"{head}{body}}}\n".encode()


def answer_of(line: bytes) -> Answer | None:
    """Parse a line of an answer file; None if it is not an answer."""
    try:
        return Answer.model_validate_json(line)
    except ValidationError:
        return _odd_answer(line)


def _odd_answer(line: bytes) -> Answer | None:
    """Parse a line that pydantic refuses for a lone surrogate or for its depth.

    One that is nested too deeply is kept as a text.
    """
    try:
        text = whole_text(json.dumps(json.loads(line), ensure_ascii=False))
        return Answer.model_validate_json(text)
    except RecursionError:
        return _too_deep(line)
    except ValidationError as error:
        too_deep = any("recursion" in detail["msg"] for detail in error.errors())
        return _too_deep(line) if too_deep else None
    except ValueError:
        return None


def _too_deep(line: bytes) -> Answer | None:
    found = _CUSTOM_ID.search(line)
    if found is None:
        return None
    body = line[: 4 * MAX_RAW].decode(errors="replace")
    return Answer(
        custom_id=str(json.loads(found[1])), response=Answered(status_code=200, body=body)
    )


def body_of(answer: Answer) -> JsonValue:
    """Return the body of a good answer; raise the error of a bad answer as a live call would."""
    response = answer.response
    if response is None or response.status_code != 200:
        raise _failure(answer.response, answer.error)
    return response.body


def _failure(response: Answered | None, error: LineError | None) -> ChainError:
    if response is not None:
        from batchord.chains.openai.errors import (
            of_status,  # on first use: see `batchord.chains.openai.client`
        )

        status = response.status_code
        made = of_status(
            status,
            said_in(response.body),
            otherwise=f"the provider answered with status {status}",
        )
        made.raw = text_of(response.body)
        return made
    code = (error and error.code) or "no_answer"
    message = (error and error.message) or "the provider gave no answer"
    if code in _NOT_RUN or code == "no_answer":
        return RetryLater(message, code=code)
    return ChainError(message, code=code)
