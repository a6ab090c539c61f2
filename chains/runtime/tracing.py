"""Spans of OpenTelemetry for batches, items, calls of models, and waits; without any content.

Spans are made in a process that has an SDK of OpenTelemetry loaded: an application's own, or the
one that a worker starts as the `OTEL_*` variables say. In all others this costs a look at a dict.
Calls of models are named as the semantic conventions of GenAI have it:
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from batchord.chains.explain import as_chain_error
from batchord.chains.usage import Usage

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

T = TypeVar("T")

#: The header of messages, and the field of batches, with the context of a batch's submission:
#: https://www.w3.org/TR/trace-context/
TRACEPARENT: Final = "traceparent"

#: Batches whose submission is remembered, to link their items to it.
_MOST_BATCHES: Final = 1_000

_submissions: OrderedDict[str, str] = OrderedDict()


class ModelCall(NamedTuple):
    """The request that a span is about."""

    #: As the conventions have it: "chat", "embeddings".
    operation: str
    model: str | None
    #: The server's address; None: OpenAI's.
    base_url: str | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """The span's attributes by the conventions; the provider is the API that is spoken."""
        address = urlsplit(self.base_url or "https://api.openai.com")
        found = {
            "gen_ai.operation.name": self.operation,
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": self.model,
            "server.address": address.hostname,
            "server.port": address.port or (443 if address.scheme == "https" else 80),
        }
        return {name: value for name, value in found.items() if value is not None}


def tracer() -> "Tracer | None":
    """Return the process's tracer; None if it has no SDK of OpenTelemetry loaded."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    return trace.get_tracer("batchord")


def traced(
    call: Callable[[], Awaitable[tuple[T, Usage]]], about: ModelCall
) -> Callable[[], Awaitable[tuple[T, Usage]]]:
    """Return a call of a model that makes a span each time that it is made."""
    mine = tracer()
    if mine is None:
        return call
    from opentelemetry.trace import SpanKind

    async def made() -> tuple[T, Usage]:
        name = " ".join(part for part in (about.operation, about.model) if part)
        with mine.start_as_current_span(
            name,
            kind=SpanKind.CLIENT,
            attributes=about.attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                answer, usage = await call()
            except BaseException as error:
                _fail(span, code_of(error))
                raise
            span.set_attributes(_used(usage))
            # Some calls return their error, with what they have used.
            failure = answer if isinstance(answer, Exception) else getattr(answer, "error", None)
            if isinstance(failure, Exception):
                _fail(span, code_of(failure))
            return answer, usage

    return made


@contextmanager
def item_span(chain: str, batch_id: str, index: int, attempt: int) -> Iterator["ItemSpan"]:
    """Make a span of an attempt: a root, with a link to the submission of its batch.

    A child of it would make one trace of a hundred thousand items.
    """
    mine = tracer()
    if mine is None:
        yield ItemSpan(None)
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, get_current_span

    submission = get_current_span(_context_of(_submissions.get(batch_id))).get_span_context()
    with mine.start_as_current_span(
        f"item {chain}",
        context=Context(),
        kind=SpanKind.CONSUMER,
        links=[Link(submission)] if submission.is_valid else [],
        attributes={
            "batchord.batch.id": batch_id,
            "batchord.chain": chain,
            "batchord.item.index": index,
            "batchord.item.attempt": attempt,
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield ItemSpan(span)


class ItemSpan:
    """The span of an attempt; nothing without a tracer."""

    def __init__(self, span: "Span | None") -> None:
        self._span = span

    def end_as(self, status: str, code: str | None, usage: Usage | None) -> None:
        """Set the attempt's end: a status of items or "deferred", and the code of its error."""
        if self._span is None:
            return
        self._span.set_attribute("batchord.item.status", status)
        self._span.set_attributes(_used(usage))
        if code is not None:
            _fail(self._span, code)


def record_wait(seconds: float) -> None:
    """Make a span of a wait that is over: for a limit, or for a provider that was down."""
    mine = tracer()
    if mine is not None:
        now = time.time_ns()
        mine.start_span("wait", start_time=now - int(seconds * 1e9)).end(now)


@contextmanager
def submission_span(chain: str, batch_id: str) -> Iterator[dict[str, str]]:
    """Make a span of a submission; yield its context, as fields to be recorded with the batch."""
    mine = tracer()
    if mine is None:
        yield {}
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    attributes = {"batchord.batch.id": batch_id, "batchord.chain": chain}
    with mine.start_as_current_span(
        f"submit {chain}", kind=SpanKind.PRODUCER, attributes=attributes, record_exception=False
    ):
        fields: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(fields)
        yield {name: text for name, text in fields.items() if name == TRACEPARENT}


def record_batch(
    name: str,
    traceparent: str | None,
    *,
    began: float,
    failed: bool,
    attributes: Mapping[str, Any],
) -> None:
    """Make the span of a batch that has ended: a child of its submission's.

    `began`: when the batch was created, in seconds since 1970.
    """
    mine = tracer()
    if mine is None:
        return
    span = mine.start_span(
        f"batch {name}",
        context=_context_of(traceparent),
        start_time=int(began * 1e9),
        attributes={key: value for key, value in attributes.items() if value is not None},
    )
    if failed:
        _fail(span, str(attributes.get("batchord.batch.status")))
    span.end()


def note_submission(batch_id: str, traceparent: str | None) -> None:
    """Remember the context of a batch's submission, as a message of it tells."""
    if traceparent is None or tracer() is None:
        return
    _submissions[batch_id] = traceparent
    _submissions.move_to_end(batch_id)
    if len(_submissions) > _MOST_BATCHES:
        _submissions.popitem(last=False)


def code_of(error: BaseException) -> str:
    """Return the code of an error, else its type: its text may quote a prompt."""
    ours = as_chain_error(error)
    return type(error).__name__ if ours is None else ours.code


def _fail(span: "Span", code: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", code)
    span.set_status(StatusCode.ERROR)


def _context_of(traceparent: str | None) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    fields = {} if traceparent is None else {TRACEPARENT: traceparent}
    return TraceContextTextMapPropagator().extract(fields, context=Context())


def _used(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    found = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
    }
    return {name: value for name, value in found.items() if value is not None}
