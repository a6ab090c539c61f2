"""A request as a file for OpenAI's Batch API has it, posted as it is."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pydantic
from pydantic_core import PydanticCustomError

from chains import provider
from chains.config import RunnableConfig
from chains.errors import (
    MAX_RAW,
    ChainError,
    InvalidInput,
    as_chain_error,
    validation_message,
)
from chains.limited import within
from chains.limits import RateLimit, estimated_tokens
from chains.registry import register
from chains.retry import DEFAULT_RETRY, RetryPolicy
from chains.run import report_usage
from chains.runnable import Step
from chains.usage import Usage

if TYPE_CHECKING:
    from openai import RequestOptions

#: The chain that every worker has: requests under no limit but what the provider asks for.
REQUESTS: Final = "openai-requests"

#: What lies below OPENAI_BASE_URL. The last two are vLLM's, whose `run-batch` takes them too; a
#: server that has none answers 404, which pauses the batch as a model that is not found does.
URLS: Final = (
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/completions",
    "/v1/score",
    "/v1/rerank",
)

#: Fields of a body that hold what the model reads, and those that bound what it writes.
_READ: Final = ("messages", "input", "prompt", "instructions")
_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class PostedRequest(pydantic.BaseModel, frozen=True):
    """What is posted, and where; fields of `body` that we do not know go through untouched."""

    url: str
    body: dict[str, Any]
    method: str = "POST"

    @pydantic.field_validator("method")
    @classmethod
    def _posted(cls, method: str) -> str:
        if method != "POST":
            raise _wrong("{got} is not supported: requests are POST", method)
        return method

    @pydantic.field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        if url not in URLS:
            raise _wrong("{got} is not supported: use one of " + ", ".join(URLS), url)
        return url

    @pydantic.field_validator("body")
    @classmethod
    def _in_one_piece(cls, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("stream"):
            raise PydanticCustomError("stream", "a batch never streams: leave out stream")
        return body


class Request(Step[Any, dict[str, Any]]):
    """A request (`{"url": ..., "body": ...}`) to the provider's answer, whatever it says.

    The answer is `{"status_code": 200, "request_id": ..., "body": ...}`; one that is an error
    raises as `Chat` does, with the answer as JSON in `raw`. A call that may succeed later is made
    again as `retry` says, and waits until `limit` allows it. Without one, a 429 with Retry-After
    still stops all calls for its model, on all workers, for so long.

    `timeout` is seconds for one call (None: the SDK's 600). Usage is reported for every call.
    """

    paid = True

    def __init__(
        self,
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = DEFAULT_RETRY,
        limit: RateLimit | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, retry=retry)
        self._limit = limit
        self._options: RequestOptions = {} if timeout is None else {"timeout": timeout}

    async def _run(self, input: Any, config: RunnableConfig, **options: Any) -> dict[str, Any]:
        try:
            request = PostedRequest.model_validate(input)
        except pydantic.ValidationError as error:
            raise InvalidInput(f"{self.name}: the input {validation_message(error)}") from None
        with provider.translate():
            client = await provider.client()
        # With the SDK's client, so that it is there already.
        import httpx2

        async def call() -> tuple[dict[str, Any], Usage]:
            report_usage(Usage(requests=1))
            try:
                response = await client.post(
                    request.url.removeprefix("/v1"),
                    cast_to=httpx2.Response,
                    body=request.body,
                    options={**self._options, "headers": provider.named(input)},
                )
            except Exception as error:
                ours = as_chain_error(error)
                if ours is None:
                    raise
                ours.raw = _refusal(error)
                raise ours from None
            try:
                body = provider.json_of(response)
                used = provider.paid(body, _model(request))
                report_usage(used)
                provider.raise_fault(body, response.headers)
                _raise_incomplete(body)
            except ChainError as error:
                error.raw = _kept(response, error)
                raise
            return _answer(response, body), used

        limit = self._limit or provider.cool_down_of(_model(request))
        answer, _ = await within(limit, _size(request.body), call)
        return answer


def register_requests() -> None:
    """Make `openai-requests` known in this process."""
    register(REQUESTS, _requests, input_type=PostedRequest)


_requests = Request()


def _wrong(text: str, got: str) -> PydanticCustomError:
    return PydanticCustomError("request", text, {"got": repr(got[:80])})


def _answer(response: Any, body: Any) -> dict[str, Any]:
    return {
        "status_code": response.status_code,
        "request_id": response.headers.get("x-request-id"),
        "body": body,
    }


def _raise_incomplete(body: Any) -> None:
    """Raise if the body is a response of the Responses API that was not ended."""
    if not isinstance(body, dict) or body.get("status") != "incomplete":
        return
    details = body.get("incomplete_details")
    why = details.get("reason") if isinstance(details, dict) else None
    if why == "content_filter":
        raise ChainError("the content filter withheld the answer", code="content_filter")
    raise ChainError(
        f"the answer is incomplete ({why}): allow more tokens, if that is why", code="length"
    )


def _kept(response: Any, error: ChainError) -> str:
    """The answer that is this error; one that is no answer has not the status of a good one."""
    good = error.code in ("length", "content_filter")
    status = error.http_status or (200 if good else 502)
    return _answer_text(response, status)


def _refusal(error: Exception) -> str | None:
    """The answer that is this error; None if there was none."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    return _answer_text(response, response.status_code)


def _answer_text(response: Any, status: int) -> str:
    """The answer as JSON; a body that is no JSON, or is too long, is a text of its beginning."""
    try:
        body = response.json()
        text = json.dumps({**_answer(response, body), "status_code": status}, ensure_ascii=False)
        if len(text) <= MAX_RAW:
            return text
    except (ValueError, RecursionError):
        pass  # the text is kept instead
    answer = {**_answer(response, response.text[: MAX_RAW // 4]), "status_code": status}
    return json.dumps(answer, ensure_ascii=False)


def _model(request: PostedRequest) -> str:
    return str(request.body.get("model") or "")


def _size(body: dict[str, Any]) -> int:
    """Tokens that a request may use: those of its texts, and of its answer if that has a limit."""
    answer = next((body[name] for name in _LIMITS if type(body.get(name)) is int), 0)
    return max(0, answer) + estimated_tokens(
        text for field in _READ for text in _texts(body.get(field))
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        # A picture is some hundred tokens, however long its address is.
        yield "" if value.startswith("data:") else value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
