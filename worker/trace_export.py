"""Export a worker's spans of OpenTelemetry, as the standard variables `OTEL_*` say."""

import logging
import os
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Final

logger = logging.getLogger(__name__)

#: The name of the service, unless the environment names another.
SERVICE: Final = "batchord-worker"
#: Seconds that a process which ends waits for its last spans to be sent.
_LAST: Final = 2.0
#: Variables one of which asks for spans.
_ASKS: Final = (
    *("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
)


def wanted(env: Mapping[str, str] = os.environ) -> str | None:
    """Return the name of the exporter that the environment asks for, or None."""
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if not any(env.get(name) for name in _ASKS):
        return None
    name = env.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return None if name == "none" else name


def start_export(service: str) -> bool:
    """Export the spans of this process if the environment asks for it; return whether it does.

    `service`: its name, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES names another. Call it
    in the process that runs items: the exporter has a thread, which a fork does not keep. What
    cannot be exported is a line in the log: it costs no item.
    """
    name = wanted()
    if name is None:
        return False
    try:
        _start(name, service)
    except ImportError:
        logger.warning('no spans: an OTEL_* variable asks for them: pip install "batchord[otel]"')
        return False
    except Exception as error:  # noqa: BLE001
        logger.warning("no spans: %s: %s", type(error).__name__, error)
        return False
    return True


def flush() -> None:
    """Send what has not been sent, as the process is about to end."""
    if "opentelemetry.sdk.trace" in sys.modules:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        provider = trace.get_tracer_provider()
        if isinstance(provider, TracerProvider):
            provider.force_flush(int(_LAST * 1000))


def _start(name: str, service: str) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return  # `opentelemetry-instrument`, or a module of the user's, has set one
    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create())
    provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    trace.set_tracer_provider(provider)


def _exporter(name: str) -> Any:
    """Return the exporter of this name; "otlp" by the protocol that the environment names."""
    if name == "otlp":
        protocols = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        said = next((os.environ[each] for each in protocols if os.environ.get(each)), "")
        name = "otlp_proto_grpc" if said == "grpc" else "otlp_proto_http"
    found = [*entry_points(group="opentelemetry_traces_exporter", name=name)]
    if not found:
        raise LookupError(
            f"OTEL_TRACES_EXPORTER: no exporter {name!r} is installed (the extra otel has otlp "
            "over HTTP, and console)"
        )
    return found[0].load()()
