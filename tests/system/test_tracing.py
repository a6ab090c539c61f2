"""Traces of a batch on real workers, as a collector of OTLP is sent them."""

import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from batchord.chains import Chat, register
from batchord.worker.trace_export import start_export, wanted
from tests.conftest import Deploy
from tests.support.harness import provider_env, wait_until
from tests.support.openai_server import OpenAIServer
from tests.support.otlp_collector import Collected, Collector, collector

SECRET = "a secret of the prompt"
BAD = "the item that fails"


@pytest.fixture(scope="module")
def collected() -> Iterator[Collector]:
    with collector() as found:
        yield found


def _of(spans: list[Collected], batch_id: str) -> list[Collected]:
    return [span for span in spans if span.attributes.get("batchord.batch.id") == batch_id]


@pytest.mark.parametrize("pool", ["asyncio", "threads", "prefork"])
def test_items_are_traces_of_their_own_that_link_to_the_submission(
    pool: str,
    deploy: Deploy,
    provider: OpenAIServer,
    collected: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The producer's side, as an application has it: its own tracer, and a span around `submit`.
    provider.fail_when(BAD, status=400, message=SECRET)
    register("ask", Chat(), replace=True)
    deployment = deploy()
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collected.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    worker = deployment.start_worker(concurrency=4, pool=pool, env=provider_env(provider) | env)
    provider_of_spans = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider_of_spans)
    with provider_of_spans.get_tracer("app").start_as_current_span("the caller") as caller:
        batch = deployment.client.submit("ask", [SECRET, SECRET, BAD])
    batch.wait(60)
    wait_until(
        lambda: (
            len(_of(collected.named("item ask"), batch.id)) == 3
            and _of(collected.named("batch ask"), batch.id)
        ),
        what="all spans have come",
        timeout=60,
    )
    items = _of(collected.named("item ask"), batch.id)
    [ended] = _of(collected.named("batch ask"), batch.id)
    submitted = f"{caller.get_span_context().trace_id:032x}"
    assert ended.trace == submitted, "the batch belongs to the caller's trace"
    assert {span.links[0] for span in items} == {ended.parent}, "as the items' links do"
    assert len({span.trace for span in items} | {submitted}) == 4, "each item is a trace"
    assert not any(span.parent for span in items)
    assert sorted(span.attributes["batchord.item.index"] for span in items) == [0, 1, 2]
    assert [span.attributes["error.type"] for span in items if span.failed] == ["bad_request"]
    calls = [
        span for span in collected.named("chat ") if span.parent in {each.id for each in items}
    ]
    assert len(calls) == 3
    assert ended.attributes["batchord.batch.items"] == 3
    assert ended.attributes["batchord.batch.failed_items"] == 1
    assert {span.service for span in (*items, *calls, ended)} == {"batchord-worker"}
    assert not any(SECRET in span.text or BAD in span.text for span in collected.spans)
    worker.stop()
    assert worker.wait() == 0


#: The environment, and the exporter that it asks for.
ASKED: list[tuple[dict[str, str], str | None]] = [
    ({}, None),
    ({"OTEL_SERVICE_NAME": "mine"}, None),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "otlp"),
    ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, "otlp"),
    ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
    ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None),
    ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, None),
]


@pytest.mark.parametrize(("env", "exporter"), ASKED, ids=lambda value: json.dumps(value))
def test_the_standard_variables_say_whether_there_are_spans(
    env: dict[str, str], exporter: str | None
) -> None:
    assert wanted(env) == exporter


def test_an_exporter_that_is_not_there_is_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert not start_export("x")
    assert "no exporter 'zipkin' is installed" in caplog.text
