"""A chat model as a step."""

import os
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar, cast, overload

import pydantic

from chains import provider
from chains.config import RunnableConfig
from chains.errors import ChainError, InvalidInput, validation_message
from chains.limited import within
from chains.limits import RateLimit, estimated_tokens
from chains.prompt import Message
from chains.retry import DEFAULT_RETRY, RetryPolicy
from chains.run import report_usage
from chains.runnable import Step
from chains.structured import Structure
from chains.usage import Usage

Answer = TypeVar("Answer", covariant=True)
Model = TypeVar("Model")

#: Names of the limit on an answer's tokens.
_LIMITS: Final = ("max_completion_tokens", "max_tokens")


class Chat(Step[Any, Answer], Generic[Answer]):
    """A chat model: text or messages in, text out, or an `output_type` as pydantic reads it.

    `output_type` is a pydantic model, or any type that pydantic can validate: `list[Model]`,
    `Model | Other`, a dataclass. An answer that does not fit is shown to the model with what is
    wrong, and asked for again, at most `reasks` times. One that is cut off at a limit that was set
    here is asked for once more with twice the limit.

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

    takes_options = True
    paid = True

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
        self: "Chat[Model]",
        model: str | None = ...,
        *,
        output_type: type[Model],
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
        **options: Any,
    ) -> None:
        super().__init__(name=name, retry=retry)
        self._model = model
        self._structure: Structure[Any] | None = (
            None if output_type is None else Structure(output_type)
        )
        self._reasks = reasks
        self._system = system
        self._limit = limit
        known = {"temperature": temperature, "max_tokens": max_tokens, "timeout": timeout}
        self._options = {
            **{key: value for key, value in known.items() if value is not None},
            **options,
        }

    async def _run(self, input: Any, config: RunnableConfig, **options: Any) -> Answer:
        request: dict[str, Any] = {
            "model": provider.model_name(self._model, "OPENAI_MODEL"),
            **self._options,
            **options,
        }
        messages = self._messages(input)
        if self._structure is None:
            return cast(Answer, _text(await self._answer(request, messages)))
        return cast(Answer, await self._structured(self._structure, request, messages))

    def fingerprint(self) -> Any:
        wanted = None if self._structure is None else self._structure.schema()
        model = self._model or os.environ.get("OPENAI_MODEL")
        return ["chat", model, self._system, self._options, wanted]

    def dump(self, output: Any) -> str | None:
        return super().dump(output) if self._structure is None else self._structure.dump(output)

    def load(self, text: str) -> Any:
        return super().load(text) if self._structure is None else self._structure.load(text)

    async def _structured(
        self, structure: Structure[Any], request: dict[str, Any], messages: list[Message]
    ) -> Any:
        """Ask until the answer fits, or the patience with the model is over."""
        may_grow, asked = True, 0
        while True:
            body = await self._answer(request, messages)
            if _finish(body) == "length":
                larger = _larger(request) if may_grow else None
                if larger is None:
                    raise ChainError(
                        "the answer was cut off at the token limit: allow more tokens",
                        code="length",
                        raw=_text(body),
                    )
                request, may_grow = larger, False
                continue
            text = _text(body)
            try:
                return structure.read(text)
            except pydantic.ValidationError as error:
                problem = validation_message(error)
            if asked == self._reasks:
                raise ChainError(problem, code="invalid_output", raw=text)
            asked += 1
            messages = [
                *messages,
                {"role": "assistant", "content": text},
                {"role": "user", "content": f"Your answer {problem}. Give the whole answer again."},
            ]

    async def _answer(self, request: dict[str, Any], messages: list[Message]) -> Any:
        """Return the body of one answer, and report what it has cost."""
        request = {
            **request,
            # As `messages`, the SDK would look each one up in a union of message types, to rename
            # nothing: a quarter of what a call costs. What is in `extra_body` it sends as it is.
            "messages": [],
            "extra_headers": provider.named([request, messages])
            | (request.get("extra_headers") or {}),
            "extra_body": {"messages": messages, **(request.get("extra_body") or {})},
        }
        with provider.translate():
            # Before the wait: to make the client takes a second, and calls would come in a heap.
            completions = (await provider.client()).chat.completions.with_raw_response

        async def call() -> tuple[Any, Usage]:
            with provider.translate():
                report_usage(Usage(requests=1))
                if self._structure is None:
                    raw = await completions.create(**request)
                else:
                    wanted = self._structure.response_format
                    raw = await completions.parse(response_format=wanted, **request)
                # The text is read from the body as it is: the SDK's objects would be made for three
                # of their fields, and would raise without what was paid for an answer that does not
                # fit.
                body = provider.body_of(raw)
                used = provider.paid(body, request["model"])
                report_usage(used)
                return body, used

        limit = self._limit or provider.shared_cool_down(request["model"])
        body, _ = await within(limit, _size(request, messages), call)
        return body

    def _messages(self, input: Any) -> list[Message]:
        messages: list[Message] = []
        if self._system is not None:
            messages.append({"role": "system", "content": self._system})
        if isinstance(input, str):
            return [*messages, {"role": "user", "content": input}]
        if (
            isinstance(input, Sequence)
            and input
            and all(isinstance(one, dict) and isinstance(one.get("role"), str) for one in input)
        ):
            return [*messages, *input]
        raise InvalidInput(
            f"{self.name} takes a text or a list of messages "
            f'({{"role": ..., "content": ...}}), not {type(input).__name__}'
        )


def _size(request: dict[str, Any], messages: list[Message]) -> int:
    """Tokens that a request may use: those of its texts, and of its answer if that has a limit."""
    answer = next((request[name] for name in _LIMITS if isinstance(request.get(name), int)), 0)
    return answer + estimated_tokens(
        text for message in messages for text in _texts(message.get("content"))
    )


def _texts(content: Any) -> list[str]:
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return [text for text in texts if isinstance(text, str)]


def _finish(body: Any) -> str | None:
    try:
        return cast(str | None, body["choices"][0].get("finish_reason"))
    except (LookupError, TypeError, AttributeError):
        return None


def _larger(request: dict[str, Any]) -> dict[str, Any] | None:
    """The request with twice its limit; None if it has none of its own."""
    for name in _LIMITS:
        if isinstance(request.get(name), int):
            return {**request, name: 2 * request[name]}
    return None


def _text(body: Any) -> str:
    """The answer of a completion's body, or ChainError."""
    try:
        choice = body["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        return _usable(message.get("content"), message.get("refusal"), finish)
    except (LookupError, TypeError, AttributeError):
        raise ChainError("the provider's answer has no choices", code="invalid_output") from None


def _usable(answer: Any, refusal: str | None, finish: str | None) -> str:
    if refusal:
        raise ChainError(f"the model refused: {refusal}", code="refusal")
    if finish == "content_filter":
        raise ChainError("the content filter withheld the answer", code="content_filter")
    if answer is None and finish == "length":
        raise ChainError(
            "the answer was cut off at the token limit before its first word: allow more tokens",
            code="length",
        )
    if answer is None:
        raise ChainError(f"the model gave no text (finish_reason {finish})", code="invalid_output")
    return cast(str, answer)
