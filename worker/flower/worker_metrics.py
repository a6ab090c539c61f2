"""Series about the workers that are alive on Flower's `/metrics`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from batchord.ledger.storage.fleet import Fleet


def of_workers(fleet: Fleet) -> Iterable[Metric]:
    """Yield gauges of the workers; each is a worker's main process, or one that runs items."""
    workers = fleet.workers
    yield _gauge(
        "workers",
        "Workers that are alive, by the version of Batchord",
        "version",
        Counter(beat.version or "unknown" for beat in workers.values()),
    )
    yield _gauge(
        "worker_slots",
        "Items that a worker can run at a time",
        "process",
        {process: beat.slots for process, beat in workers.items()},
    )
    yield _gauge(
        "worker_in_flight",
        "Items that a worker runs",
        "process",
        {process: beat.in_flight for process, beat in workers.items()},
    )
    yield _gauge(
        "loop_lag_seconds",
        "How late the event loop of a process that runs items is; above 1 it is blocked",
        "process",
        fleet.lags,
    )


def _gauge(name: str, says: str, label: str, values: Mapping[str, Any]) -> Metric:
    gauge = GaugeMetricFamily(f"batchord_{name}", says, labels=[label])
    for value_of, value in values.items():
        gauge.add_metric([value_of], value)
    return gauge
