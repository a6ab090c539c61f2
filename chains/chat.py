"""A chat model as a step."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast, overload

import pydantic

from chains import provider
from chains.config import RunnableConfig
from chains.errors import ChainError, InvalidInput
from chains.prompt import Message
from chains.retry import DEFAULT_RETRY, RetryPolicy
from chains.run import report_usage
from chains.runnable import Step
from chains.usage import Usage

Answer = TypeVar("Answer", covariant=True)
Model = TypeVar("Model", bound=pydantic.BaseModel)


class Chat(Step[Any, Answer], Generic[Answer]):
    """A chat model: text or messages in, text out, or an instance of `output_type`.

    The model is `model`, else OPENAI_MODEL. `options` are further options of the request
    (`seed=1`, `max_completion_tokens=500`); `timeout` is seconds for one request (None: the SDK's
    600). Calls that may succeed later are made again as `retry` says (None: never).

    Errors: RetryLater, OperatorNeeded, or ChainError with `refusal`, `content_filter`, `length`,
    `invalid_output`, `bad_request`, `unprocessable`. An answer in plain text that is cut off at
    the token limit is returned as far as it goes; with `output_type` it is the error `length`.
    Usage is reported for every request, also if its answer is then refused.
    """

    takes_options = True

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
        name: str | None = ...,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Chat[Model]",
        model: str | None = ...,
        *,
        output_type: type[Model],
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        timeout: float | None = ...,
        retry: RetryPolicy | None = ...,
        name: str | None = ...,
        **options: Any,
    ) -> None: ...
    def __init__(
        self,
        model: str | None = None,
        *,
        output_type: type[pydantic.BaseModel] | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = DEFAULT_RETRY,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name, retry=retry)
        _check_output_type(output_type)
        self._model = model
        self._output_type = output_type
        self._system = system
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
        # As `messages`, the SDK would look each one up in a union of message types, to rename
        # nothing: a quarter of what a call costs. What is in `extra_body` it sends as it is.
        request["messages"] = []
        request["extra_body"] = {
            "messages": self._messages(input),
            **(request.get("extra_body") or {}),
        }
        with provider.translate():
            completions = (await provider.client()).chat.completions.with_raw_response
            report_usage(Usage(requests=1))
            if self._output_type is None:
                raw = await completions.create(**request)
            else:
                raw = await completions.parse(response_format=self._output_type, **request)
            # Before the answer is looked at: a refused answer has been paid for too.
            body = provider.body_of(raw)
            report_usage(provider.tokens_used(body))
            # Plain text is read from the body as it is: the SDK's objects would be made for three
            # of their fields.
            return cast(Answer, _text(body) if self._output_type is None else _parsed(raw.parse()))

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


def _check_output_type(kind: object) -> None:
    if kind is None or (isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)):
        return
    raise TypeError(f"output_type must be a pydantic model class, not {kind!r}")


def _text(body: Any) -> str:
    """The answer of a completion's body, or ChainError."""
    try:
        choice = body["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        return cast(str, _usable(message.get("content"), message.get("refusal"), finish, "text"))
    except (LookupError, TypeError, AttributeError):
        raise ChainError("the provider's answer has no choices", code="invalid_output") from None


def _parsed(completion: Any) -> Any:
    """The answer of a parsed completion, or ChainError."""
    choices = getattr(completion, "choices", None)
    if not choices:
        raise ChainError("the provider's answer has no choices", code="invalid_output")
    message, finish = choices[0].message, choices[0].finish_reason
    return _usable(message.parsed, message.refusal, finish, "content")


def _usable(answer: Any, refusal: str | None, finish: str | None, what: str) -> Any:
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
        raise ChainError(
            f"the model gave no {what} (finish_reason {finish})", code="invalid_output"
        )
    return answer
