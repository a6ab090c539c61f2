"""A chat model as a step."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from batchord.chains.ratelimit.limits import RateLimit
from batchord.chains.runtime.retry import DEFAULT_RETRY, RetryPolicy
from batchord.chains.steps.llm_options import given
from batchord.chains.steps.llm_reply import Reply
from batchord.chains.steps.llm_step import Answer, LLMStep, StructuredOutput
from batchord.chains.steps.prompt import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Model = TypeVar("Model")


class Chat(LLMStep[Answer]):
    """A chat model: text or messages in, text out, or an `output_type` as pydantic reads it.

    Messages are `{"role": ..., "content": ...}`, or LangChain's messages or prompt value.

    `output_type` is a pydantic model, or any type that pydantic can validate: `list[Model]`,
    `Model | Other`, a dataclass; or a JSON schema, a dict, for answers as JSON values. An answer
    that does not fit is shown to the model with what is wrong, and asked for again, at most
    `reasks` times; a fence or a think block around its JSON is taken off before. One that is cut
    off at a limit that was set here is asked for once more with twice the limit.

    `structured_output` is how the provider is asked for an `output_type`: by `"json_schema"` (the
    default); by `"json_object"`, where it knows no schemas, or by `"prompt"` alone, where it knows
    neither: both add the schema to the system message. A `response_format` of your own goes out as
    it is.

    Tools that are functions, and `n` above 1, are refused: an answer is one text. `Request` gives
    the whole answer.

    The model is `model`, else OPENAI_MODEL. `options` are further options of the request
    (`seed=1`, `max_completion_tokens=500`); `timeout` is seconds for one request (None: the SDK's
    600). Calls that may succeed later are made again as `retry` says (None: never).
    Each waits until `limit` allows it; without one, the items of submitted batches wait together
    when a provider is busy and says for how long.

    Errors: RetryLater, OperatorNeeded, or ChainError with `refusal`, `content_filter`, `length`,
    `invalid_output`, `bad_request`, `unprocessable`. An answer in plain text that is cut off at
    the token limit is returned as far as it goes; with `output_type` it is the error `length`. An
    answer that fits in no attempt is kept in the error, as `raw`. Usage is reported for every
    request, also if its answer is then refused.
    """

    endpoint = "/v1/chat/completions"
    conversation = "messages"
    limits = ("max_completion_tokens", "max_tokens")

    @overload
    def __init__(
        self: "Chat[str]",
        model: str | None = ...,
        *,
        output_type: None = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        timeout: float | None = ...,
        retry: RetryPolicy | None = ...,
        limit: RateLimit | None = ...,
        name: str | None = ...,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Chat[Any]",
        model: str | None = ...,
        *,
        output_type: Mapping[str, Any],
        structured_output: StructuredOutput | None = ...,
        reasks: int = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        timeout: float | None = ...,
        retry: RetryPolicy | None = ...,
        limit: RateLimit | None = ...,
        name: str | None = ...,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Chat[Model]",
        model: str | None = ...,
        *,
        output_type: type[Model],
        structured_output: StructuredOutput | None = ...,
        reasks: int = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        timeout: float | None = ...,
        retry: RetryPolicy | None = ...,
        limit: RateLimit | None = ...,
        name: str | None = ...,
        **options: Any,
    ) -> None: ...
    def __init__(
        self,
        model: str | None = None,
        *,
        output_type: Any = None,
        reasks: int = 2,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = DEFAULT_RETRY,
        limit: RateLimit | None = None,
        name: str | None = None,
        structured_output: StructuredOutput | None = None,
        **options: Any,
    ) -> None:
        self._system = system
        known = given(temperature=temperature, max_tokens=max_tokens, timeout=timeout)
        super().__init__(
            model,
            output_type=output_type,
            reasks=reasks,
            retry=retry,
            limit=limit,
            name=name,
            structured_output=structured_output,
            options={**known, **options},
        )

    def _create(self, client: "AsyncOpenAI") -> Callable[..., Awaitable[Any]]:
        return client.chat.completions.with_raw_response.create

    def _form_of(self, options: Mapping[str, Any]) -> Any:
        return options.get("response_format")

    def _asks_for(self, form: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        kind = form["type"]
        wanted = {kind: {key: form[key] for key in form if key != "type"}} if len(form) > 1 else {}
        return {"response_format": {"type": kind, **wanted}}

    def fingerprint(self) -> Any:
        return [*super().fingerprint(), self._system]

    def _messages(self, input: Any) -> list[Message]:
        messages = super()._messages(input)
        if self._system is None:
            return messages
        return [{"role": "system", "content": self._system}, *messages]

    def _reply(self, body: Any) -> Reply:
        choice = body["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        if isinstance(content, list):
            content, refused = _of_parts(content)
            refusal = refusal or refused
        said = None if content else json.dumps(message, ensure_ascii=False)
        return Reply(content, refusal, choice.get("finish_reason"), said)


def _of_parts(parts: list[Any]) -> tuple[str | None, str | None]:
    """Return the text and the refusal in a content's parts; reasoning is left out."""
    texts = [
        part if isinstance(part, str) else part.get("text") for part in parts if _is_text(part)
    ]
    refusals = [part["refusal"] for part in parts if _is_refusal(part)]
    return "".join(texts) if texts else None, "".join(refusals) or None


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (
        part.get("type") in (None, "text", "output_text") and isinstance(part.get("text"), str)
    )


def _is_refusal(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("refusal"), str)
