"""A request as a file for OpenAI's Batch API has it, posted as it is."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import pydantic
from pydantic_core import PydanticCustomError

from batchord.chains.composition.step import Step
from batchord.chains.config import RunnableConfig
from batchord.chains.errors import ChainError, InvalidInput
from batchord.chains.explain import MAX_RAW, as_chain_error, validation_message
from batchord.chains.openai import client
from batchord.chains.openai.routes import route_of, routes_are_set
from batchord.chains.ratelimit.circuit_breaker import current_patience, patience
from batchord.chains.ratelimit.guard import within
from batchord.chains.ratelimit.limits import RateLimit, estimated_tokens
from batchord.chains.ratelimit.probes import probe_for
from batchord.chains.registry import register
from batchord.chains.runtime.item_context import report_usage
from batchord.chains.runtime.retry import DEFAULT_RETRY, RetryPolicy
from batchord.chains.runtime.stored_payloads import StoredLine, stored_body
from batchord.chains.runtime.tracing import ModelCall, traced
from batchord.chains.usage import Usage

#: The chain that every worker has: requests under no limit but what the provider asks for.
REQUESTS: Final = "openai-requests"

#: What is posted below OPENAI_BASE_URL. The last three are vLLM's.
PATHS: Final = (
    "/chat/completions",
    "/embeddings",
    "/responses",
    "/completions",
    "/moderations",
    "/score",
    "/rerank",
    "/pooling",
)
#: What stands before a path in a line's url: OpenAI's, vLLM's of some, and none, as Azure has it.
_VERSION: Final = re.compile(r"/v[12](?=/)")

#: Fields of a body that hold what the model reads, and those that bound what it writes.
_READ: Final = ("messages", "input", "prompt", "instructions")
_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class Attempts(pydantic.BaseModel, frozen=True):
    """How patiently one request is made, where it says so itself; None: as the step has it."""

    #: Calls in all, the first one included.
    max_attempts: int | None = pydantic.Field(default=None, ge=1)
    #: Seconds for one call.
    timeout: float | None = pydantic.Field(default=None, gt=0)
    #: Seconds for which a provider that is down is waited for, until the batch pauses.
    outage_patience: float | None = pydantic.Field(default=None, ge=0)


class RequestLine(pydantic.BaseModel, frozen=True):
    """A request as a file has it, which need not be one that can be made."""

    url: str
    body: dict[str, Any]
    method: str = "POST"
    attempts: Attempts = Attempts()
    #: Where the body is, if it is too large for the ledger; `body` has its model alone.
    stored: StoredLine | None = None


class PostedRequest(RequestLine, frozen=True):
    """The body to post and its path; unknown fields of `body` go through untouched."""

    @property
    def path(self) -> str:
        """Where it is posted, below OPENAI_BASE_URL."""
        return _VERSION.sub("", self.url, count=1)

    @pydantic.field_validator("method")
    @classmethod
    def _posted(cls, method: str) -> str:
        if method != "POST":
            raise _wrong("{got} is not supported: requests are POST", method)
        return method

    @pydantic.field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        if _VERSION.sub("", url, count=1) not in PATHS:
            known = ", ".join(f"/v1{path}" for path in PATHS)
            raise _wrong("{got} is not supported: use one of " + known, url)
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
        self._timeout = timeout

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        given = input.attempts if isinstance(input, RequestLine) else Attempts()
        step = self
        if given.max_attempts is not None:
            step = copy.copy(self)
            step.retry = replace(self.retry or DEFAULT_RETRY, max_attempts=given.max_attempts)
        bears = given.outage_patience
        with patience(current_patience() if bears is None else bears):
            return await super(Request, step).ainvoke(input, config, **kwargs)

    def unset(self, environment: Mapping[str, str]) -> list[str]:
        """Return its key if that is not set; each request names its model, and a route its key."""
        return [] if routes_are_set() else client.unset(environment)

    async def _request_of(self, input: Any) -> PostedRequest:
        try:
            given = input.model_dump() if isinstance(input, RequestLine) else input
            if isinstance(input, RequestLine) and input.stored is not None:
                given |= {"body": await stored_body(input.stored), "stored": None}
            return PostedRequest.model_validate(given)
        except pydantic.ValidationError as error:
            raise InvalidInput(f"{self.name}: the input {validation_message(error)}") from None

    async def _run(self, input: Any, config: RunnableConfig, **kwargs: Any) -> dict[str, Any]:
        request = await self._request_of(input)
        timeout = self._timeout if request.attempts.timeout is None else request.attempts.timeout
        route = route_of(_model(request))
        if route is not None:
            request = request.model_copy(update={"body": route.body_of(request.body)})
        with client.translate():
            sender = await client.sender(route)

        async def post(body: dict[str, Any], headers: dict[str, str]) -> Any:
            report_usage(Usage(requests=1))
            return await sender.post_body(request.path, body, headers, timeout)

        async def probe() -> None:
            with client.translate():
                _paid(request, await post(probe_for(request.path, request.body.get("model")), {}))

        async def call() -> tuple[dict[str, Any], Usage]:
            try:
                response = await post(request.body, client.named(input))
            except Exception as error:
                ours = as_chain_error(error)
                if ours is None:
                    raise
                ours.raw = _refusal(error)
                raise ours from None
            try:
                body, used = _paid(request, response)
                _raise_incomplete(body)
            except ChainError as error:
                error.raw = _kept(response, error)
                raise
            return _answer(response, body), used

        target = client.cool_down_of(_model(request), route)
        own = self._limit if route is None else route.limit
        limit, size = own or target, _size(request.body)
        about = ModelCall(_operation(request.path), _model(request), str(sender.sdk.base_url))
        answer, _ = await within(limit, size, traced(call, about), target=target, probe=probe)
        return answer


def register_requests() -> None:
    """Make `openai-requests` known in this process."""
    register(REQUESTS, _requests, input_type=RequestLine)


_requests = Request()


def _operation(path: str) -> str:
    """Return the operation of an endpoint, as OpenTelemetry names it."""
    return "embeddings" if path.endswith("/embeddings") else "chat"


def _wrong(text: str, got: str) -> PydanticCustomError:
    return PydanticCustomError("request", text, {"got": repr(got[:80])})


def _paid(request: PostedRequest, response: Any) -> tuple[Any, Usage]:
    """Return the body of an answer and its usage, which is reported; raise if it is an error."""
    body = client.json_of(response)
    used = client.paid(body, _model(request))
    report_usage(used)
    client.raise_fault(body, response.headers)
    return body, used


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
    """Format the answer behind an error; an invalid answer does not keep its good status."""
    good = error.code in ("length", "content_filter")
    status = error.http_status or (200 if good else 502)
    return _answer_text(response, status)


def _refusal(error: Exception) -> str | None:
    """Format the answer behind an error; None if the error has no response."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    return _answer_text(response, response.status_code)


def _answer_text(response: Any, status: int) -> str:
    """Format the answer as JSON; an invalid or too long body becomes the beginning of its text."""
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
