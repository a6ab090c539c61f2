"""Series about batches on Flower's `/metrics`, summed up by chain.

Gauges are of live batches, counters of all batches. A chain has some dozens of series. No batch is
a label, and only registered chains are; chains that travel as data are counted as their kind.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import prometheus_client
from flower.views.monitor import Metrics as FlowersMetrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from batchord.chains.errors import BatchordError
from batchord.chains.specs.chain_spec import family
from batchord.ledger.errors import UnreadableBatch
from batchord.ledger.models import BatchRecord, BatchStatus, Repair
from batchord.ledger.storage.batch_stats import Progress
from batchord.ledger.storage.chain_totals import ChainTotals
from batchord.ledger.storage.fleet import Fleet
from batchord.worker.flower.queries import Queries
from batchord.worker.flower.worker_metrics import of_workers

logger = logging.getLogger(__name__)

#: Live batches that one look takes in, the oldest ones; there are seldom more than a few.
_MOST: Final = 1_000

#: Gauges of the batches that have not ended: (name without `batchord_`, what it says, labels beside
#: the chain).
_GAUGES: Final = {
    "batches": ("Batches that have not ended", ["status"]),
    "items": ("Items of batches that have not ended", ["status"]),
    "items_per_second": ("Items that end, lately", []),
    "oldest_batch_seconds": ("Age of the oldest batch that has not ended", []),
    "latency_p95_seconds": ("The slowest live batch's 95th percentile of an attempt", []),
}

#: Those that are not sums over a chain's batches.
_LARGEST: Final = {"oldest_batch_seconds", "latency_p95_seconds"}

Values = Mapping[tuple[str, ...], float]

#: Counters of all batches that there ever were: (name, what it says, labels beside the chain, its
#: values by those).
_COUNTERS: Final[Sequence[tuple[str, str, list[str], Callable[[ChainTotals], Values]]]] = [
    (
        "batches_ended",
        "Ends of batches; one whose items were retried has several",
        ["status"],
        lambda sums: {(status,): n for status, n in sums.batches.items()},
    ),
    (
        "outcomes",
        "Outcomes of items; one that was retried has several",
        ["status"],
        lambda sums: {(status,): n for status, n in sums.outcomes.items()},
    ),
    (
        "restarts",
        "Starts of settled items beyond their first",
        [],
        lambda sums: {(): sums.restarts},
    ),
    (
        "retried_items",
        "Failed items that were run again because someone asked for it",
        [],
        lambda sums: {(): sums.retried},
    ),
    ("requests", "Calls to providers", [], lambda sums: {(): sums.usage.requests or 0}),
    (
        "tokens",
        "Tokens that were used",
        ["kind"],
        lambda sums: {
            ("input",): sums.usage.input_tokens or 0,
            ("output",): sums.usage.output_tokens or 0,
        },
    ),
    (
        "cost_usd",
        "US dollars spent where prices are known",
        [],
        lambda sums: {(): (sums.usage.cost_nanos or 0) / 1e9},
    ),
    (
        "unpriced_requests",
        "Calls whose price is unknown",
        [],
        lambda sums: {(): sums.usage.unpriced_requests or 0},
    ),
    (
        "rate_limit_waits",
        "Calls that were held back for a rate limit or a cool-down",
        [],
        lambda sums: {(): sums.usage.rate_limit_waits or 0},
    ),
    (
        "rate_limit_wait_seconds",
        "How long calls were held back, in all",
        [],
        lambda sums: {(): (sums.usage.rate_limit_wait_ms or 0) / 1e3},
    ),
]

Look = list[tuple[BatchRecord, Progress]]


class BatchMetrics:
    """A collector: it tells of the latest look, so that collecting never waits for Redis."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._overview = queries.overview
        self._look: Look = []
        self._totals: dict[str, ChainTotals] = {}
        self._repairs: dict[Repair, int] = {}
        self._fleet = Fleet({})
        self._live = 0
        self._unreadable = 0
        self._up = False
        prometheus_client.REGISTRY.register(self)

    async def look(self) -> None:
        """Look at the ledger, in a thread."""
        await self._queries.ask(self._look_at_all)

    def _look_at_all(self) -> None:
        try:
            live = self._queries.reader.active()
            found = self._overview.look(live[:_MOST])
            self._look = [one for one in found if isinstance(one, tuple)]
            self._unreadable = sum(isinstance(one, UnreadableBatch) for one in found)
            self._totals = self._queries.totals(live[:_MOST])
            self._live = len(live)
            self._repairs = self._overview.repairs()
            self._fleet = self._queries.reader.fleet()
            self._up = True
        except BatchordError as error:
            # Counters that were told stay: one that is gone and comes again would have been reset.
            self._look, self._live, self._unreadable, self._up = [], 0, 0, False
            self._fleet = Fleet({})
            logger.warning("no metrics of batches: %s", error)

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: registering must not look."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yield the latest figures as Prometheus metrics."""
        yield GaugeMetricFamily("batchord_up", "Whether the ledger could be read", self._up)
        yield GaugeMetricFamily(
            "batchord_live_batches",
            f"Batches that have not ended; all other series sum up the oldest {_MOST}",
            self._live,
        )
        yield GaugeMetricFamily(
            "batchord_unreadable_batches",
            "Batches that have not ended and cannot be read; other series leave them out",
            self._unreadable,
        )
        repairs = CounterMetricFamily(
            "batchord_sweep_repairs", "Tasks that the sweeps have sent again", labels=["why"]
        )
        for why, count in self._repairs.items():
            repairs.add_metric([why], count)
        yield repairs
        yield from of_workers(self._fleet)
        yield _unserved([record for record, _ in self._look], self._fleet)
        gauges: dict[str, dict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))
        for record, progress in self._look:
            for name, labels, value in _values(record, progress):
                key = (family(record.chain), *labels)
                so_far = gauges[name][key]
                gauges[name][key] = max(so_far, value) if name in _LARGEST else so_far + value
        for name, (says, labels) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"batchord_{name}", says, labels=["chain", *labels])
            for key, value in gauges[name].items():
                gauge.add_metric(key, value)
            yield gauge
        for name, says, labels, values in _COUNTERS:
            counter = CounterMetricFamily(f"batchord_{name}", says, labels=["chain", *labels])
            for chain, sums in self._totals.items():
                for key, value in values(sums).items():
                    counter.add_metric([chain, *key], value)
            yield counter


def _unserved(records: Iterable[BatchRecord], fleet: Fleet) -> Metric:
    gauge = GaugeMetricFamily(
        "batchord_unserved_batches",
        "Batches that no live worker can run: it lacks the chain, its version, or the format",
        labels=["chain"],
    )
    waiting = Counter(
        family(record.chain)
        for record in records
        if record.status is BatchStatus.IN_PROGRESS and fleet.trouble(record.needs)
    )
    for chain, count in waiting.items():
        gauge.add_metric([chain], count)
    return gauge


def _values(record: BatchRecord, progress: Progress) -> Iterable[tuple[str, Sequence[str], float]]:
    counts = record.request_counts
    ended = counts.model_dump(exclude={"total"})
    yield "batches", [record.status], 1
    for status, count in ended.items():
        yield "items", [status], count
    yield "items", ["running"], record.running
    yield "items", ["put_off"], record.put_off
    queued = counts.total - counts.done - record.running - record.put_off
    yield "items", ["queued"], max(0, queued)
    yield "items_per_second", [], progress.rate or 0.0
    yield "oldest_batch_seconds", [], time.time() - record.created_at.timestamp()
    if progress.latency_p95 is not None:
        yield "latency_p95_seconds", [], progress.latency_p95


class Metrics(FlowersMetrics):
    """Flower's `/metrics`, after a look at the ledger."""

    def initialize(self, metrics: BatchMetrics) -> None:
        self._metrics = metrics

    async def get(self) -> Any:
        await self._metrics.look()
        await super().get()
