"""The completion callback: a Celery signature that is published once, when its batch has ended.

Its task is the submitter's own, and runs where its queue is consumed, with the batch id as its
first argument, as Celery's `link` passes on a result.
"""

import logging
from typing import Annotated, Any, Final

from celery import Celery
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from batchord.chains.runtime.tracing import record_batch, tracer
from batchord.ledger.broker.transport import ONCE
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.core.json_values import encode
from batchord.ledger.errors import SubmitRefused, ValueRejected
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.outbox import Outbox

logger = logging.getLogger(__name__)

#: Bytes of a signature as JSON.
MOST_BYTES: Final = 16_384

_CURE: Final = (
    "on_complete: give one task's signature, as `report.s('weekly').set(queue='reports')`, with "
    "JSON arguments; what is to follow it goes into its `link`"
)

Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\w.:/@-]+$")]
Seconds = Annotated[float, Field(ge=0, le=10 * 365 * 24 * 3600)]
Links = list[dict[str, Any]]


class Options(BaseModel):
    """The options of a signature's publishing, with Celery's names and meanings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    queue: Name | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    countdown: Seconds | None = None
    expires: Seconds | None = None
    time_limit: Seconds | None = None
    soft_time_limit: Seconds | None = None
    ignore_result: bool = False
    link: Links = []
    link_error: Links = []


class Callback(BaseModel):
    """The signature of one task: Celery's `Signature` as a dict."""

    model_config = ConfigDict(frozen=True, strict=True)

    task: Name
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    options: Options = Options()
    immutable: bool = False
    #: Of a chain, a group or a chord, which are several messages.
    subtask_type: None = None


def checked(signature: object, reader: BatchReader, settings: Settings) -> str:
    """Check a signature; return it as JSON text.

    Raises:
        SubmitRefused: it is not a signature that another process can publish later; or it names
            no queue, and no worker of Batchord has announced its task.
    """
    if not isinstance(signature, dict):
        raise SubmitRefused(f"{_CURE}; this is a {type(signature).__name__}")
    try:
        text = encode(signature, max_bytes=MOST_BYTES, setting="nothing")
    except ValueRejected as error:
        what = "more than 16 KB of it" if error.code == "too_large" else str(error)
        raise SubmitRefused(f"{_CURE}; this is {what}") from None
    try:
        callback = Callback.model_validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, found["loc"]))
        raise SubmitRefused(f"{_CURE}; {place}: {found['msg']}") from None
    queue = callback.options.queue
    if (queue is None or queue in settings.queues) and not reader.has_task(callback.task):
        raise SubmitRefused(
            f"on_complete: no worker of Batchord has the task {callback.task!r}: name the queue "
            "where it is consumed, as `report.s().set(queue='reports')`, or have workers import "
            "its module with BATCHORD_CHAINS"
        )
    return callback.model_dump_json()


def end_batch(app: Celery, store: BatchStore, record: BatchRecord) -> bool:
    """Commit a batch whose items all have an outcome, and publish its callback.

    Return whether this call did the commit. If the publishing fails, or this process dies, the
    workers publish the callback soon.
    """
    crash_point("before-commit")
    if not store.commit(record.id, total=record.request_counts.total, key=record.idempotency_key):
        return False
    if tracer() is not None:
        _trace_end(BatchReader(store), record.id)
    try:
        publish_callback(app, store, record.id)
    except Exception as error:  # noqa: BLE001
        # The batch has ended, and the callback stays due in the outbox.
        logger.warning("callback not published yet batch=%s: %s", record.id, type(error).__name__)
    return True


def _trace_end(reader: BatchReader, batch_id: str) -> None:
    """Make the span of a batch that has ended."""
    record = reader.record(batch_id)
    counts = record.request_counts
    record_batch(
        record.chain,
        record.traceparent,
        began=record.created_at.timestamp(),
        failed=record.status is BatchStatus.FAILED,
        attributes={
            "batchord.batch.id": record.id,
            "batchord.chain": record.chain,
            "batchord.batch.status": record.status.value,
            "batchord.batch.items": counts.total,
            "batchord.batch.failed_items": counts.failed,
        },
    )


def publish_callback(app: Celery, store: BatchStore, batch_id: str) -> bool:
    """Publish the ended batch's callback, unless a process has published it already.

    The message and the record that it is published are one write (`publish_once.lua`): after a
    crash before it the workers find the callback due, and after it nothing is left to do.
    """
    outbox = Outbox(store)
    text = outbox.callback(batch_id)
    if text is None:
        return False
    callback = Callback.model_validate_json(text)
    options = callback.options
    amqp, task = app.amqp, callback.task
    message = amqp.as_task_v2(
        callback_task_id(batch_id),
        task,
        args=callback.args if callback.immutable else [batch_id, *callback.args],
        kwargs=callback.kwargs,
        countdown=options.countdown,
        expires=options.expires,
        time_limit=options.time_limit,
        soft_time_limit=options.soft_time_limit,
        ignore_result=options.ignore_result,
        callbacks=options.link or None,
        errbacks=options.link_error or None,
    )
    # Our own Connection class, which knows `ONCE`.
    with app.connection_for_write() as connection:
        amqp.send_task_message(
            amqp.Producer(connection),
            task,
            message,
            queue=options.queue or store.settings.queue,
            priority=options.priority,
            headers={ONCE: outbox.callback_keys(batch_id)},
        )
    return True


def callback_task_id(batch_id: str) -> str:
    """Return the Celery task id of a batch's completion callback, always the same."""
    return f"{batch_id}:on-complete"
