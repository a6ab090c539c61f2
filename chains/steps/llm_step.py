"""The base of steps that ask a language model: the request, the answer, and asking again."""

import os
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    TypeVar,
    cast,
    get_args,
)

import pydantic

from batchord.chains.composition.step import Step
from batchord.chains.config import RunnableConfig
from batchord.chains.errors import ChainError
from batchord.chains.explain import validation_message, whole_text
from batchord.chains.openai import client
from batchord.chains.openai.repeated_request import OF_SENDING
from batchord.chains.ratelimit.guard import within
from batchord.chains.ratelimit.limits import RateLimit, estimated_tokens
from batchord.chains.ratelimit.probes import PROBE
from batchord.chains.runtime.checkpoints import Worded
from batchord.chains.runtime.item_context import report_usage
from batchord.chains.runtime.retry import RetryPolicy
from batchord.chains.runtime.tracing import ModelCall, traced
from batchord.chains.steps.conversation import Conversing, texts_of
from batchord.chains.steps.llm_options import refuse_lost
from batchord.chains.steps.llm_reply import Reply, usable, whole
from batchord.chains.steps.offline_call import OfflineCall
from batchord.chains.steps.prompt import Message
from batchord.chains.steps.schema_structure import structure_of
from batchord.chains.steps.structured_output import Structure
from batchord.chains.usage import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Answer = TypeVar("Answer", covariant=True)

#: How the provider is asked for an answer with a structure.
StructuredOutput = Literal["json_schema", "json_object", "prompt"]

#: What a request needs to reach its model.
_OF_TARGET: Final[tuple[str, ...]] = ("model", "timeout", "extra_headers", "extra_query")


class LLMStep(Conversing, Step[Any, Answer], OfflineCall, Generic[Answer]):
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
        structured_output: StructuredOutput | None,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(name=name, retry=retry)
        self._model = model
        self._structure: Structure[Any] | None = (
            None if output_type is None else structure_of(output_type)
        )
        self._reasks = reasks
        self._limit = limit
        self._options = dict(options)
        self._structured_output = structured_output or "json_schema"
        refuse_lost(self._options)
        self._check_form(structured_output)

    @abstractmethod
    def _create(self, client: "AsyncOpenAI") -> Callable[..., Awaitable[Any]]:
        """Return the SDK's method that sends a request and returns its raw response."""

    @abstractmethod
    def _form_of(self, options: Mapping[str, Any]) -> Any:
        """Return the answer format that these options ask for, or None."""

    @abstractmethod
    def _asks_for(self, form: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Build the options that ask for an answer of this form: its `type` and its settings."""

    @abstractmethod
    def _reply(self, body: Any) -> Reply:
        """Parse an answer's body; LookupError, TypeError or AttributeError if it is invalid."""

    async def _run(self, input: Any, config: RunnableConfig, **options: Any) -> Answer:
        refuse_lost(options)
        asked = {**self._options, **options}
        request, messages = self._request(asked), self._conversation(input, asked)
        if self._structure is None:
            return cast(Answer, usable(self._read(await self._answer(request, messages))))
        return cast(Answer, await self._structured(self._structure, request, messages))

    def fingerprint(self) -> Any:
        schema = None if self._structure is None else self._structure.digest
        found = [self.endpoint, self._asked_for(), self._options, schema]
        usual = self._structured_output == "json_schema"
        return found if usual else [*found, self._structured_output]

    def dump(self, output: Any) -> str | None:
        return super().dump(output.text if isinstance(output, Worded) else output)

    def load(self, text: str) -> Any:
        said = super().load(text)
        return said if self._structure is None else Worded(self._structure.read(said), said)

    def plain(self, output: Any) -> Any:
        return output if self._structure is None else self._structure.plain(output)

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
            text = whole(reply)
            try:
                return Worded(structure.read(text), text)
            except pydantic.ValidationError as error:
                problem = validation_message(error)
            if asked == self._reasks:
                raise ChainError(problem, code="invalid_output", raw=text)
            asked += 1
            again = f"Your answer {problem}. Give the whole answer again."
            # A message without a text is refused by many providers.
            said = [self._said(text)] if text.strip() else []
            messages = [*messages, *said, {"role": "user", "content": again}]

    async def _answer(self, request: dict[str, Any], messages: list[Message]) -> Any:
        """Return the body of one answer, and report what it has cost."""
        with client.translate():
            # Before the wait: to make the client takes a second, and calls would come in a heap.
            sender = await client.sender()
            create = self._create(sender.sdk)

        async def probe() -> None:
            small = {name: request[name] for name in _OF_TARGET if name in request}
            await made(small, [{"role": "user", "content": PROBE}], {})

        async def call() -> tuple[Any, Usage]:
            return await made(request, messages, client.named([request, messages]))

        async def made(
            request: dict[str, Any], messages: list[Message], headers: dict[str, str]
        ) -> tuple[Any, Usage]:
            with client.translate():
                report_usage(Usage(requests=1))
                large = self.conversation, messages
                response = await sender.post(create, request, large, headers)
                # The text is read from the body as it is: the SDK's objects would be made for three
                # of their fields, and would raise without what was paid for an answer that does not
                # fit.
                body = client.json_of(response)
                used = client.paid(body, request["model"])
                report_usage(used)
                client.raise_fault(body, response.headers)
                return body, used

        target = client.cool_down_of(request["model"])
        limit = self._limit or client.shared_cool_down(request["model"])
        size = self._size(request, messages)
        about = ModelCall("chat", request["model"], str(sender.sdk.base_url))
        body, _ = await within(limit, size, traced(call, about), target=target, probe=probe)
        return body

    def _request(self, options: dict[str, Any]) -> dict[str, Any]:
        """Build the arguments of a request, without the conversation."""
        request = {"model": client.model_name(self._model, "OPENAI_MODEL"), **options}
        if self._structure is None or self._form_of(self._sent(options)) is not None:
            return request
        form = self._structure.form(self._structured_output)
        return request if form is None else request | self._asks_for(form, options)

    def _conversation(self, input: Any, options: Mapping[str, Any]) -> list[Message]:
        """Build the messages for this input, with the schema unless an option carries it."""
        messages = self._messages(input)
        by_option = self._structured_output == "json_schema"
        if self._structure is None or by_option or self._form_of(self._sent(options)) is not None:
            return messages
        told = self._structure.instruction
        first, *rest = messages
        if first.get("role") == "system" and isinstance(first.get("content"), str):
            return [{**first, "content": f"{first['content']}\n\n{told}"}, *rest]
        return [{"role": "system", "content": told}, *messages]

    def _sent(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All that is sent, wherever it was given."""
        return {**options, **(options.get("extra_body") or {})}

    def _check_form(self, structured_output: str | None) -> None:
        if structured_output is None:
            return
        if structured_output not in get_args(StructuredOutput):
            known = ", ".join(get_args(StructuredOutput))
            raise ValueError(f"structured_output is one of {known}, not {structured_output!r}")
        if self._structure is None:
            raise ValueError("structured_output is for an output_type: give one, or leave it out")
        if self._form_of(self._sent(self._options)) is not None:
            raise ValueError(
                "the options ask for a form of their own (response_format, text.format): leave out "
                "that or structured_output"
            )

    def request(self, input: Any) -> dict[str, Any]:
        """Build the body of the request for this input, as it goes over the wire."""
        request = self._request(self._options)
        body = {key: value for key, value in request.items() if key not in OF_SENDING}
        extra = request.get("extra_body") or {}
        return {**body, self.conversation: self._conversation(input, self._options), **extra}

    def read(self, body: Any) -> Any:
        """Convert an answer's body to the output, or raise ChainError."""
        client.raise_fault(body)
        reply = self._read(body)
        if self._structure is None:
            return usable(reply)
        text = whole(reply)
        try:
            return self._structure.read(text)
        except pydantic.ValidationError as error:
            problem = validation_message(error)
        raise ChainError(problem, code="invalid_output", raw=text)

    def asked_for(self) -> str:
        """Return the model that requests name."""
        return client.model_name(self._model, "OPENAI_MODEL")

    def unset(self, environment: Mapping[str, str]) -> list[str]:
        """Return what is not set of its key and, where it names none itself, its model."""
        return client.unset(environment, *([] if self._model else ["OPENAI_MODEL"]))

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
            reply = self._reply(body)
        except (LookupError, TypeError, AttributeError):
            raise client.no_answer(body) from None
        if reply.text is not None and not isinstance(reply.text, str):
            raise client.no_answer(body)
        return reply._replace(text=None if reply.text is None else whole_text(reply.text))

    def _larger(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Double the request's token limit; None if the request sets no limit."""
        for name in self.limits:
            if isinstance(request.get(name), int):
                return {**request, name: 2 * request[name]}
        return None

    def _size(self, request: dict[str, Any], messages: list[Message]) -> int:
        """Tokens that a request may use: of its texts, and of its answer if that has a limit."""
        limits = (request.get(name) for name in self.limits)
        answer = next((limit for limit in limits if isinstance(limit, int)), 0)
        contents = (message.get("content") for message in messages)
        return answer + estimated_tokens(text for each in contents for text in texts_of(each))
