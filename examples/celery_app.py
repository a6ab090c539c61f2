"""An application with Celery tasks of its own, one of which is called when a batch has ended.

Its broker is the Redis that Batchord uses, as that is where `on_complete` is published; its queue
is its own. Batchord's workers run the batch, the application's run `report`:

    batchord up --chains triage
    celery -A examples.celery_app worker --queues reports
    python -m examples.celery_app
"""

import os

from celery import Celery

from batchord import Client, Settings

app = Celery("shop", broker=os.environ.get("SHOP_BROKER") or Settings().url())
app.conf.task_default_queue = "reports"


@app.task
def report(batch_id: str, team: str) -> str:
    """Read what the batch has come to; its id comes before the arguments of the signature."""
    with Client() as client:
        batch = client.retrieve(batch_id)
        counts = batch.request_counts
        failed = [item.index for item in batch.results() if item.error is not None]
    line = f"{team}: {counts.succeeded} of {counts.total} succeeded, failed: {failed}"
    app.log.get_default_logger().warning(line)
    return line


def submit(chain: str, inputs: list[object]) -> str:
    """Submit a batch that calls `report` at its end."""
    with Client() as client:
        on_complete = report.s("support").set(queue="reports")
        return client.submit(chain, inputs, on_complete=on_complete).id


if __name__ == "__main__":
    print(submit("triage", [{"ticket": "The site is down"}, {"wrong": "no ticket"}]))
