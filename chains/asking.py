"""What the steps that ask a language model share: the request, the answer, and asking again."""

import os
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, TypeVar, cast

import pydantic

from chains import provider
from chains.config import RunnableConfig
from chains.errors import ChainError, InvalidInput, validation_message
from chains.limited import within
from chains.limits import RateLimit, estimated_tokens
from chains.offline import OfflineCall
from chains.prompt import Message
from chains.retry import RetryPolicy
from chains.run import report_usage
from chains.runnable import Step
from chains.structured import Structure
from chains.usage import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Answer = TypeVar("Answer", covariant=True)

#: Options that are about the sending, and no part of what is sent.
_OF_SENDING: Final = ("timeout", "extra_headers", "extra_query", "extra_body")


class Reply(NamedTuple):
    """What an answer's body says, whichever API it is of."""

    text: str | None = None
    refusal: str | None = None
    #: Why it ended there: `length`, `content_filter`, or any other word.
    finish: str | None = None


class Asking(Step[Any, Answer], OfflineCall, Generic[Answer]):
    """A language model as a step; a subclass knows one of the APIs that it is asked through."""

    takes_options = True
    paid = True

    #: The option that the conversation goes into, and the options that limit an answer's tokens.
    conversation: ClassVar[str]
    limits: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        model: str | None,
        *,
        output_type: Any,
        reasks: int,
        retry: RetryPolicy | None,
        limit: RateLimit | None,
        name: str | None,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(name=name, retry=retry)
        self._model = model
        self._structure: Structure[Any] | None = (
            None if output_type is None else Structure(output_type)
        )
        self._reasks = reasks
        self._limit = limit
        self._options = dict(options)
        _refuse_streaming(self._options)

    @abstractmethod
    def _create(self, client: "AsyncOpenAI") -> Callable[..., Awaitable[Any]]:
        """The method of the SDK that sends a request, and gives its raw response."""

    @abstractmethod
    def _asks_for(self, structure: Structure[Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that ask for an answer of this structure."""

    @abstractmethod
    def _reply(self, body: Any) -> Reply:
        """What the body says; LookupError, TypeError or AttributeError if it is no answer."""

    async def _run(self, input: Any, config: RunnableConfig, **options: Any) -> Answer:
        _refuse_streaming(options)
        request, messages = self._request({**self._options, **options}), self._messages(input)
        if self._structure is None:
            return cast(Answer, _usable(self._read(await self._answer(request, messages))))
        return cast(Answer, await self._structured(self._structure, request, messages))

    def fingerprint(self) -> Any:
        schema = None if self._structure is None else self._structure.digest
        return [self.endpoint, self._asked_for(), self._options, schema]

    def dump(self, output: Any) -> str | None:
        return super().dump(output) if self._structure is None else self._structure.dump(output)

    def load(self, text: str) -> Any:
        return super().load(text) if self._structure is None else self._structure.load(text)

    def _asked_for(self) -> str | None:
        return self._model or os.environ.get("OPENAI_MODEL")

    async def _structured(
        self, structure: Structure[Any], request: dict[str, Any], messages: list[Message]
    ) -> Any:
        """Ask until the answer fits, or the patience with the model is over."""
        may_grow, asked = True, 0
        while True:
            reply = self._read(await self._answer(request, messages))
            larger = self._larger(request) if may_grow and reply.finish == "length" else None
            if larger is not None:
                request, may_grow = larger, False
                continue
            text = _whole(reply)
            try:
                return structure.read(text)
            except pydantic.ValidationError as error:
                problem = validation_message(error)
            if asked == self._reasks:
                raise ChainError(problem, code="invalid_output", raw=text)
            asked += 1
            messages = [
                *messages,
                self._said(text),
                {"role": "user", "content": f"Your answer {problem}. Give the whole answer again."},
            ]

    async def _answer(self, request: dict[str, Any], messages: list[Message]) -> Any:
        """Return the body of one answer, and report what it has cost."""
        with provider.translate():
            # Before the wait: to make the client takes a second, and calls would come in a heap.
            create = self._create(await provider.client())
        arguments = {
            **request,
            # As an argument, the SDK would look each message up in a union of types, to rename
            # nothing: a quarter of what a call costs. `extra_body` it sends as it is.
            self.conversation: [],
            "extra_headers": {
                **provider.named([request, messages]),
                **(request.get("extra_headers") or {}),
            },
            "extra_body": {self.conversation: messages, **(request.get("extra_body") or {})},
        }

        async def call() -> tuple[Any, Usage]:
            with provider.translate():
                report_usage(Usage(requests=1))
                raw = await create(**arguments)
                # The text is read from the body as it is: the SDK's objects would be made for three
                # of their fields, and would raise without what was paid for an answer that does not
                # fit.
                body = provider.body_of(raw)
                used = provider.paid(body, request["model"])
                report_usage(used)
                provider.raise_fault(body, raw.headers)
                return body, used

        limit = self._limit or provider.shared_cool_down(request["model"])
        body, _ = await within(limit, self._size(request, messages), call)
        return body

    def _request(self, options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a request but for the conversation."""
        request = {"model": provider.model_name(self._model, "OPENAI_MODEL"), **options}
        if self._structure is not None:
            request |= self._asks_for(self._structure, options)
        return request

    def request(self, input: Any) -> dict[str, Any]:
        """The body of the request for this input, as it goes over the wire."""
        request = self._request(self._options)
        body = {key: value for key, value in request.items() if key not in _OF_SENDING}
        extra = request.get("extra_body") or {}
        return {**body, self.conversation: self._messages(input), **extra}

    def read(self, body: Any) -> Any:
        """The output that an answer's body is, or ChainError."""
        provider.raise_fault(body)
        reply = self._read(body)
        if self._structure is None:
            return _usable(reply)
        text = _whole(reply)
        try:
            return self._structure.read(text)
        except pydantic.ValidationError as error:
            problem = validation_message(error)
        raise ChainError(problem, code="invalid_output", raw=text)

    def asked_for(self) -> str:
        """The model that requests name."""
        return provider.model_name(self._model, "OPENAI_MODEL")

    def why_not_offline(self) -> str | None:
        """Why its requests cannot be lines of a file."""
        return next(
            (
                f"{self.name} sends {option}, which a file of requests cannot carry"
                for option in ("extra_headers", "extra_query")
                if self._options.get(option)
            ),
            None,
        )

    def _read(self, body: Any) -> Reply:
        try:
            return self._reply(body)
        except (LookupError, TypeError, AttributeError):
            raise provider.no_answer(body) from None

    def _larger(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The request with twice its limit; None if it has none of its own."""
        for name in self.limits:
            if isinstance(request.get(name), int):
                return {**request, name: 2 * request[name]}
        return None

    def _size(self, request: dict[str, Any], messages: list[Message]) -> int:
        """Tokens that a request may use: of its texts, and of its answer if that has a limit."""
        limits = (request.get(name) for name in self.limits)
        answer = next((limit for limit in limits if isinstance(limit, int)), 0)
        contents = (message.get("content") for message in messages)
        return answer + estimated_tokens(text for each in contents for text in _texts(each))

    def _messages(self, input: Any) -> list[Message]:
        if isinstance(input, str):
            return [{"role": "user", "content": input}]
        if isinstance(input, Sequence) and input and all(map(self._is_message, input)):
            return list(input)
        raise InvalidInput(
            f"{self.name} takes a text or a list of messages "
            f'({{"role": ..., "content": ...}}), not {type(input).__name__}'
        )

    def _said(self, text: str) -> Message:
        """An answer of the model's, as it stands in a conversation."""
        return {"role": "assistant", "content": text}

    def _is_message(self, value: Any) -> bool:
        return isinstance(value, dict) and isinstance(value.get("role"), str)


def given(**options: Any) -> dict[str, Any]:
    """Those of the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _refuse_streaming(options: Mapping[str, Any]) -> None:
    if options.get("stream"):
        raise ValueError("stream: an answer is taken whole, leave it out")


def _texts(content: Any) -> Iterable[str]:
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return [text for text in texts if isinstance(text, str)]


def _whole(reply: Reply) -> str:
    """The text of an answer that must be complete to be read."""
    text = _usable(reply)
    if reply.finish == "length":
        raise ChainError(
            "the answer was cut off at the token limit: allow more tokens", code="length", raw=text
        )
    return text


def _usable(reply: Reply) -> str:
    """The text of an answer, or ChainError."""
    if reply.refusal:
        raise ChainError(f"the model refused: {reply.refusal}", code="refusal")
    if reply.finish == "content_filter":
        raise ChainError("the content filter withheld the answer", code="content_filter")
    if reply.text is None and reply.finish == "length":
        raise ChainError(
            "the answer was cut off at the token limit before its first word: allow more tokens",
            code="length",
        )
    if reply.text is None:
        raise ChainError(
            f"the model gave no text (it ended with {reply.finish})", code="invalid_output"
        )
    return reply.text
