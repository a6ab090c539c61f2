"""A plain Celery chord with the settings that are commonly recommended, for comparison."""

import json
import os
import time
from pathlib import Path

from celery import Celery

from tests.chains_for_tests.journal import write_line

#: Where its broker and its results are.
VARIABLE = "CHAOS_PLAIN_URL"


def create_app(url: str) -> Celery:
    """Return the app, with its two tasks."""
    app = Celery("plain", broker=url, backend=url)
    app.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        result_backend_always_retry=True,
        # As short as ours, and looked at as often: nothing is left to kombu's patience.
        broker_transport_options={
            "visibility_timeout": 5,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
    )
    app.task(name="item")(item)
    app.task(name="collect")(collect)
    return app


def item(index: int, journal: str, seconds: float) -> int:
    """As the chain `work`."""
    write_line(journal, f"start {index} {os.getpid()} {time.monotonic()}")
    time.sleep(seconds)
    write_line(journal, f"end {index} {os.getpid()} {time.monotonic()}")
    return index


def collect(results: list[int], path: str) -> None:
    """Write the results where the judge finds them."""
    part = Path(f"{path}.part")
    part.write_text(json.dumps(results))
    part.replace(path)


app = create_app(os.environ.get(VARIABLE, "redis://"))
