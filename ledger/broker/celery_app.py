"""The Celery app of producers, workers and Flower; creating it connects to nothing."""

from typing import Any, Final

from celery import Celery
from kombu.entity import Queue

from batchord.ledger.settings import Settings

#: Seconds after which a quiet connection is checked.
HEALTH_CHECK: Final = 5.0

#: Celery's names of pools that are ours.
POOLS: Final = {"asyncio": "batchord.worker.execution.asyncio_pool:TaskPool"}

#: Seconds that a call to the queue may take.
BROKER_TIMEOUT: Final = 4.0


def create_app(
    settings: Settings, *, include: tuple[str, ...] = (), set_as_current: bool = False
) -> Celery:
    """Return a Celery app for these settings; workers import the modules of `include` at start.

    `set_as_current`: whether it becomes Celery's current app, which `shared_task` and signatures
    use. Only a worker process may: in an application, the current app is the application's own.

    Raises:
        NoServer: no Redis is configured.
    """
    url = settings.url()
    app = Celery(
        "batchord",
        amqp="batchord.ledger.broker.transport:AMQP",
        broker=url,
        backend=f"batchord.ledger.broker.chord_backend.LedgerBackend+{url}",
        set_as_current=set_as_current,
        # Celery's fix-up for Django changes sys.path and connects signals of the whole process.
        fixups=None if set_as_current else (),
    )
    app.conf.update(_configuration(settings), include=list(include))
    return app


def queue_apart(app: Celery, name: str) -> Any:
    """Return a queue (kombu's) of messages that were put apart; the app knows it from here on."""
    queues = app.amqp.queues
    return queues[name] if name in queues else queues.add(_queue(name))


def _queue(name: str) -> Any:
    return Queue(name, routing_key=name)


def _configuration(settings: Settings) -> dict[str, Any]:
    json_only = ["json"]
    return {
        # JSON and nothing else: a pickle in the queue must be refused, not loaded.
        "accept_content": json_only,
        "result_accept_content": json_only,
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "task_default_queue": settings.queue,
        "task_queues": [*map(_queue, settings.queues)],
        "task_create_missing_queues": True,
        # The ledger has every outcome; Celery only counts the parts of a shard.
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "result_expires": settings.result_ttl,
        "result_chord_expires": settings.result_ttl,
        # Acknowledge last: until then the message can be given to another worker.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # Would leave a chord stuck for good after a crash between result and chord part.
        "worker_deduplicate_successful_tasks": False,
        "worker_soft_shutdown_timeout": settings.shutdown_grace,
        "worker_enable_soft_shutdown_on_idle": False,
        # The pool that waits on the event loop; Celery's own time limits do not work in it, the
        # items' deadlines are ours.
        "worker_pool": POOLS.get(settings.pool, settings.pool),
        "worker_concurrency": 32,
        "worker_send_task_events": settings.task_events,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A server that is full, loads its data or is not the master now must not end a worker.
        "broker_channel_error_retry": True,
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout,
            # kombu looks for expired messages every interval x throttle seconds (100 by default),
            # which takes a round trip of the worker's main thread.
            "unacked_restore_interval": min(10.0, max(1.0, settings.visibility_timeout / 10)),
            "unacked_restore_throttle": 1,
            # The worker's main thread makes several such calls, heartbeats among them, before it
            # gives up a silent connection: each must be short.
            "socket_timeout": min(BROKER_TIMEOUT, settings.socket_timeout),
            "socket_connect_timeout": min(BROKER_TIMEOUT, settings.socket_timeout),
            "socket_keepalive": True,
            # A silent connection is given up a second later than that.
            "health_check_interval": min(HEALTH_CHECK, settings.socket_timeout),
        },
        # A restart of Redis must not turn a finished item into a failed part.
        "result_backend_always_retry": True,
        "redis_socket_timeout": settings.socket_timeout,
        "redis_socket_connect_timeout": 5,
        "redis_socket_keepalive": True,
        "redis_retry_on_timeout": True,
        "redis_backend_health_check_interval": min(HEALTH_CHECK, settings.socket_timeout),
    }
