"""Spans of model calls and of waits, by the conventions and without any content."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from batchord.chains import ChainError, Chat, Embed, RateLimit, Request, Responses, RetryPolicy
from tests.support.openai_server import OpenAIServer

SECRET = "a secret of the prompt"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[ReadableSpan]]:
    """Trace what this process does; a provider that is set for good would trace later tests too."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return lambda: [*exporter.get_finished_spans()]


REQUEST = {"model": "m", "messages": [{"role": "user", "content": SECRET}]}

#: A step, its input, and its span's name.
CALLS: dict[str, tuple[Any, Any, str]] = {
    "chat": (Chat(model="m"), SECRET, "chat m"),
    "responses": (Responses(model="m"), SECRET, "chat m"),
    "embeddings": (Embed("e"), [SECRET], "embeddings e"),
    "request": (
        Request(),
        {"method": "POST", "url": "/v1/chat/completions", "body": REQUEST},
        "chat m",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_a_span_by_the_conventions_of_genai(
    name: str, server: OpenAIServer, spans: Callable[[], list[ReadableSpan]]
) -> None:
    step, value, expected = CALLS[name]
    step.invoke(value)
    [span] = [each for each in spans() if each.name != "wait"]  # a busy machine may wait
    assert (span.name, span.kind) == (expected, trace.SpanKind.CLIENT)
    operation, model = expected.split()
    said: dict[str, Any] = dict(span.attributes or {})
    assert said.pop("gen_ai.usage.input_tokens") > 0
    said.pop("gen_ai.usage.output_tokens", None)
    assert said.pop("server.port") > 0
    assert said == {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "server.address": "127.0.0.1",
    }
    assert SECRET not in span.to_json()


def test_each_try_is_a_span_and_an_error_is_a_code_without_its_text(
    server: OpenAIServer, spans: Callable[[], list[ReadableSpan]]
) -> None:
    server.fail_when(None, status=500, message=SECRET)
    with pytest.raises(ChainError):
        Chat(model="m", retry=RetryPolicy(max_attempts=2, initial=0.01)).invoke("hello")
    found = [span for span in spans() if span.name == "chat m"]
    assert [dict(span.attributes or {})["error.type"] for span in found] == ["server_error"] * 2
    assert all(not span.status.is_ok for span in found)
    assert not any(SECRET in span.to_json() for span in found)


def test_a_wait_for_a_limit_is_a_span(
    server: OpenAIServer, spans: Callable[[], list[ReadableSpan]]
) -> None:
    Chat(model="m", limit=RateLimit("traced", rpm=600, concurrency=1)).batch(["a"] * 8)
    names = [span.name for span in spans()]
    assert names.count("chat m") == 8
    assert "wait" in names


def test_a_parent_of_the_callers_is_the_parent(
    server: OpenAIServer, spans: Callable[[], list[ReadableSpan]]
) -> None:
    with trace.get_tracer("app").start_as_current_span("mine") as mine:
        Chat(model="m").invoke("hello")
    call = next(span for span in spans() if span.name == "chat m")
    assert call.parent is not None
    assert call.parent.span_id == mine.get_span_context().span_id
