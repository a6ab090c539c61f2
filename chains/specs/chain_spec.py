"""A chain as data: what a batch records of it, and what any worker builds from that."""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Self

import pydantic

from batchord.chains.composition.runnable import Runnable
from batchord.chains.errors import BadSpec, InvalidInput
from batchord.chains.ratelimit.limits import RateLimit
from batchord.chains.registry import RegisteredChain
from batchord.chains.runtime.retry import DEFAULT_RETRY, RetryPolicy
from batchord.chains.specs.field_types import schema_of_type
from batchord.chains.steps.chat import Chat
from batchord.chains.steps.embed import DEFAULT_MODEL, Embed
from batchord.chains.steps.llm_step import StructuredOutput
from batchord.chains.steps.prompt import Prompt
from batchord.chains.steps.schema_structure import SchemaStructure, refusal

#: Characters of a spec as JSON. It is recorded once a batch, and read by each worker process.
MOST_CHARACTERS: Final = 200_000
#: No name of a registered chain holds it.
_MARK: Final = "@"
#: Hexadecimal digits of a digest in a chain's name.
_DIGITS: Final = 12

#: Options that a spec has fields for, and those that would let a submitter choose where a worker's
#: key goes.
_NOT_OPTIONS: Final = {
    *("model", "messages", "response_format", "stream", "temperature", "max_tokens"),
    *("timeout", "extra_headers", "extra_query", "extra_body", "output_type", "reasks", "system"),
    *("retry", "limit", "name", "structured_output", "input", "dimensions"),
}


class ChainSpec(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A chain that travels with its batch as data: one prompt over an input, or one embedding.

    `prompt` and `system` are templates: `{subject}` is the input's field of that name, and nothing
    is evaluated. An input that is not a dict is the value of a prompt's only field.

    Raises:
        pydantic.ValidationError: a field is missing, unknown or invalid.
    """

    #: What the model is asked: a template over the fields of an input.
    prompt: str | None = pydantic.Field(default=None, min_length=1)
    #: The system message, a template too.
    system: str | None = pydantic.Field(default=None, min_length=1)
    #: JSON schema of the answer; a type that pydantic knows becomes one. None: the answer is text.
    output_schema: Annotated[dict[str, Any] | None, pydantic.BeforeValidator(schema_of_type)] = None
    #: In place of a prompt: the field whose text becomes a vector.
    embed: str | None = pydantic.Field(default=None, min_length=1)
    #: Else OPENAI_MODEL, or OPENAI_EMBEDDING_MODEL, of the process that makes the spec.
    model: str = pydantic.Field(min_length=1, max_length=200)
    #: Of a vector; None: the model's own.
    dimensions: int | None = pydantic.Field(default=None, ge=1)
    temperature: float | None = pydantic.Field(default=None, ge=0)
    max_tokens: int | None = pydantic.Field(default=None, ge=1)
    #: How the provider is asked for the schema.
    structured_output: StructuredOutput | None = None
    #: How often an answer that does not fit is asked for again.
    reasks: int = pydantic.Field(default=2, ge=0, le=10)
    #: Seconds for one request.
    timeout: float | None = pydantic.Field(default=None, gt=0)
    retry: RetryPolicy = DEFAULT_RETRY
    limit: RateLimit | None = None
    #: Further fields of the request's body (`seed`, `reasoning_effort`).
    options: dict[str, Any] = {}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _with_model(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("model") is not None:
            return data
        found = os.environ.get("OPENAI_MODEL")
        if data.get("embed") is not None:
            found = os.environ.get("OPENAI_EMBEDDING_MODEL") or DEFAULT_MODEL
        if not found:
            raise ValueError("no model: name one (model=, or -m), or set OPENAI_MODEL")
        return {**data, "model": found}

    @pydantic.model_validator(mode="after")
    def _is_one_chain(self) -> Self:
        if (self.prompt is None) == (self.embed is None):
            raise ValueError("give a prompt or a field to embed, and not both")
        self._refuse_strangers()
        if self.output_schema is not None and (why := refusal(self.output_schema)) is not None:
            raise ValueError(f"output_schema: {why}")
        if len(self.as_json()) > MOST_CHARACTERS:
            raise ValueError(
                f"more than {MOST_CHARACTERS:,} characters: what differs by input belongs there"
            )
        try:
            self.build()
        except TypeError as error:
            raise ValueError(str(error)) from None
        return self

    def _refuse_strangers(self) -> None:
        """Refuse settings that mean nothing here."""
        of_prompt = ("system", "output_schema", "temperature", "max_tokens", "structured_output")
        strange = of_prompt if self.embed is not None else ("dimensions",)
        for name in strange:
            if getattr(self, name) is not None:
                kind = "an embedding" if self.embed is not None else "a prompt"
                raise ValueError(f"{name}: not for {kind}, leave it out")
        if lost := sorted(_NOT_OPTIONS & self.options.keys()):
            raise ValueError(f"options: {', '.join(lost)} cannot be set here")

    @property
    def kind(self) -> str:
        """`prompt` or `embed`."""
        return "prompt" if self.embed is None else "embed"

    @cached_property
    def name(self) -> str:
        """The name of the chain: its kind and a digest of all that it says."""
        digest = hashlib.sha256(self.as_json().encode()).hexdigest()[:_DIGITS]
        return f"{self.kind}{_MARK}{digest}"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of an input that it needs, in the order in which they come."""
        return self._template.fields

    def as_json(self) -> str:
        """Return the spec as JSON text; equal specs have the same."""
        said = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(said, separators=(",", ":"), ensure_ascii=False)

    def check(self, value: Any) -> None:
        """Check that an input has the fields that the templates name.

        Raises:
            InvalidInput: it lacks one; the message names those that it has.
        """
        if not isinstance(value, Mapping):
            if len(self.fields) > 1:
                raise InvalidInput(
                    f"the prompt has the fields {', '.join(self.fields)}: an input must be an "
                    f"object with these, not {type(value).__name__}"
                )
            return
        missing = [name for name in self.fields if name not in value]
        if missing:
            has = ", ".join(map(str, value)) or "none"
            raise InvalidInput(f"no field {', '.join(missing)}: the input has {has}")

    def rendered(self, value: Any) -> str:
        """Return all that the model is given for an input: messages, and an answer's schema."""
        found = self._template.render(value)
        texts = [found] if isinstance(found, str) else [each["content"] for each in found]
        return "\n".join([*texts, *self._schema_text])

    @cached_property
    def _schema_text(self) -> list[str]:
        known = self.output_schema is not None
        return [json.dumps(SchemaStructure(self.output_schema or {}).schema)] if known else []

    def build(self) -> Runnable[Any, Any]:
        """Return the chain."""
        if self.embed is not None:
            step: Runnable[Any, Any] = Embed(
                self.model,
                dimensions=self.dimensions,
                timeout=self.timeout,
                retry=self.retry,
                limit=self.limit,
                **self.options,
            )
        else:
            # Given as one dict: the overloads of Chat tell a text's chain from a type's.
            known: dict[str, Any] = self.model_dump(
                include={"temperature", "max_tokens", "timeout", "structured_output", "reasks"}
            )
            step = Chat(
                self.model,
                output_type=self.output_schema,
                retry=self.retry,
                limit=self.limit,
                **known,
                **self.options,
            )
        chain = self._template | step
        # The template calls nothing: texts of many items share the requests of an embedding.
        chain.inputs_per_call = step.inputs_per_call
        return chain

    @cached_property
    def _template(self) -> Prompt:
        if self.embed is not None:
            return Prompt(f"{{{self.embed}}}")
        if self.system is None:
            return Prompt(self.prompt or "")
        return Prompt([("system", self.system), ("user", self.prompt or "")])


def chain_spec(**given: Any) -> ChainSpec:
    """Return the spec of these fields; None stands for a field that was not given.

    Raises:
        BadSpec: a field is invalid; the message says what to change, on one line.
    """
    try:
        return ChainSpec(**{name: value for name, value in given.items() if value is not None})
    except pydantic.ValidationError as error:
        raise BadSpec(_reasons(error)) from None


def registered_spec(name: str, text: str) -> RegisteredChain:
    """Return the chain of this name from its spec as JSON.

    Raises:
        BadSpec: the text is not the spec that the name was given to.
    """
    try:
        spec = ChainSpec.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise BadSpec(f"chain {name!r}: {_reasons(error)}") from None
    if spec.name != name:
        raise BadSpec(f"chain {name!r} is recorded with the spec of {spec.name!r}")
    return registered_chain(spec)


def registered_chain(spec: ChainSpec) -> RegisteredChain:
    """Return the spec as a worker has it."""
    return RegisteredChain(name=spec.name, chain=spec.build(), source=spec)


def is_spec(name: str) -> bool:
    """Whether a chain of this name travels with its batches as data."""
    return _MARK in name


def family(name: str) -> str:
    """Return the name that a chain is counted under: those of all prompts are counted together."""
    return name.partition(_MARK)[0]


def _reasons(error: pydantic.ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    parts = []
    for detail in found:
        place = ".".join(map(str, detail["loc"]))
        message = detail["msg"].removeprefix("Value error, ")
        parts.append(f"{place}: {message}" if place else message)
    return "; ".join(parts)
