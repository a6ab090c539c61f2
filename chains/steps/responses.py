"""A language model as a step, asked through the Responses API."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from batchord.chains.ratelimit.limits import RateLimit
from batchord.chains.runtime.retry import DEFAULT_RETRY, RetryPolicy
from batchord.chains.steps.llm_options import given
from batchord.chains.steps.llm_reply import Reply
from batchord.chains.steps.llm_step import Answer, LLMStep, StructuredOutput
from batchord.chains.steps.prompt import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Model = TypeVar("Model")

#: Why an answer is incomplete, as a chat would say it.
_FINISH: Final = {"max_output_tokens": "length"}


class Responses(LLMStep[Answer]):
    """A language model through the Responses API: text or messages in, text or `output_type` out.

    All is as with `Chat`, also the errors; `max_output_tokens` is the limit on an answer, and
    `system` goes as `instructions`. An answer whose status is `failed` is the error that it names.
    What is no message of the assistant (reasoning, calls of tools) is passed over.
    """

    endpoint = "/v1/responses"
    conversation = "input"
    limits = ("max_output_tokens",)

    @overload
    def __init__(
        self: "Responses[str]",
        model: str | None = ...,
        *,
        output_type: None = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_output_tokens: int | None = ...,
        timeout: float | None = ...,
        retry: RetryPolicy | None = ...,
        limit: RateLimit | None = ...,
        name: str | None = ...,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Responses[Any]",
        model: str | None = ...,
        *,
        output_type: Mapping[str, Any],
        structured_output: StructuredOutput | None = ...,
        reasks: int = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_output_tokens: int | None = ...,
        timeout: float | None = ...,
        retry: RetryPolicy | None = ...,
        limit: RateLimit | None = ...,
        name: str | None = ...,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Responses[Model]",
        model: str | None = ...,
        *,
        output_type: type[Model],
        structured_output: StructuredOutput | None = ...,
        reasks: int = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_output_tokens: int | None = ...,
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
        max_output_tokens: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = DEFAULT_RETRY,
        limit: RateLimit | None = None,
        name: str | None = None,
        structured_output: StructuredOutput | None = None,
        **options: Any,
    ) -> None:
        known = given(
            instructions=system,
            temperature=temperature,
            max_output_tokens=max_output_tokens,
            timeout=timeout,
        )
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
        if self._options.get("background"):
            raise ValueError("background: an answer is waited for, leave it out")

    def _create(self, client: "AsyncOpenAI") -> Callable[..., Awaitable[Any]]:
        return client.responses.with_raw_response.create

    def _form_of(self, options: Mapping[str, Any]) -> Any:
        return (options.get("text") or {}).get("format")

    def _asks_for(self, form: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": {**(options.get("text") or {}), "format": form}}

    def _is_message(self, value: Any) -> bool:
        # Calls of tools and what came of them are items of a conversation, too.
        return super()._is_message(value) or (
            isinstance(value, dict) and isinstance(value.get("type"), str)
        )

    def _said(self, text: str) -> Message:
        # In full: servers other than OpenAI's (llama.cpp) do not take the short form.
        part = {"type": "output_text", "text": text, "annotations": []}
        return {"type": "message", "role": "assistant", "content": [part]}

    def _size(self, request: dict[str, Any], messages: list[Message]) -> int:
        said = {"content": request.get("instructions")}
        return super()._size(request, [said, *messages])

    def _reply(self, body: Any) -> Reply:
        status = body.get("status")
        reason = (body.get("incomplete_details") or {}).get("reason")
        finish = _FINISH.get(str(reason), reason) if status == "incomplete" else status
        parts = list(_parts(body["output"]))
        refusals = [part["refusal"] for part in parts if part["type"] == "refusal"]
        texts = [part["text"] for part in parts if part["type"] == "output_text"]
        said = None if texts else json.dumps(body["output"], ensure_ascii=False)
        return Reply("".join(texts) if texts else None, "".join(refusals) or None, finish, said)


def _parts(output: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the content parts of an answer's final messages."""
    for item in output:
        if item["type"] == "message" and item.get("phase") in (None, "final_answer"):
            yield from item["content"]
