"""The handlers' URLs. Named, and made by `url`, so that `--url-prefix` moves them too."""

from pathlib import Path
from typing import Any, Final

from tornado.web import StaticFileHandler, url

from batchord.worker.flower import handlers
from batchord.worker.flower.metrics import BatchMetrics, Metrics
from batchord.worker.flower.queries import Queries
from batchord.worker.flower.task_handlers import Revoke
from batchord.worker.flower.worker_handlers import ListWorkers

_STATIC: Final = Path(__file__).parent / "static"


def routes(queries: Queries) -> list[Any]:
    """Return the handlers of the Batches tab, over the same queries."""
    at = {"queries": queries}
    return [
        url(r"/batches", handlers.BatchesPage, at, name="batches"),
        url(r"/batches/data", handlers.BatchesData, at, name="batches-data"),
        url(r"/batches/events", handlers.BatchesEvents, at, name="batches-events"),
        url(r"/batches/static/(.*)", StaticFileHandler, {"path": str(_STATIC)}, "batches-static"),
        url(r"/batch/([^/]+)", handlers.BatchPage, at, name="batch"),
        url(r"/batch/([^/]+)/data", handlers.BatchData, at, name="batch-data"),
        url(r"/batch/([^/]+)/events", handlers.BatchEvents, at, name="batch-events"),
        url(r"/batch/([^/]+)/(results|errors)\.jsonl", handlers.Download, at, name="batch-lines"),
        url(r"/api/batches", handlers.ListBatches, at, name="api-batches"),
        # `/api/workers` is Flower's own: what Celery knows of them, when asked.
        url(r"/api/batches/workers", ListWorkers, at, name="api-batches-workers"),
        url(r"/api/batches/([^/]+)", handlers.GetBatch, at, name="api-batch"),
        url(
            r"/api/batches/([^/]+)/(cancel|pause|resume|retry)",
            handlers.Act,
            at,
            name="api-batch-act",
        ),
        # Flower's own takes all other tasks.
        url(r"/api/task/revoke/(batch_[0-9a-f]{24}:.+)", Revoke, name="batch-revoke"),
        url(r"/metrics", Metrics, {"metrics": BatchMetrics(queries)}, name="batches-metrics"),
    ]
