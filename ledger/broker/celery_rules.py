"""Celery settings that would break a batch, with the damage and the cure of each.

Chain modules can change the settings of `app.app`, and `celery worker` has options for
some. A worker refuses these as it starts; `batchord doctor` asks running workers for them.
A setting without a rule here works, or changes nothing: docs/operating.md has the list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from batchord.ledger.broker.celery_app import POOLS
from batchord.ledger.core.message_ids import GATHER, RUN_ITEMS
from batchord.ledger.settings import Settings


@dataclass(frozen=True, slots=True)
class Rule:
    """A setting that has to stay as `create_app` has it."""

    #: The damage to a batch.
    why: str
    cure: str = "leave it as it is"
    #: The option of `celery worker` that sets it.
    option: str = ""

    def broken(self, name: str, value: Any) -> str:
        """Format the line that refuses this value."""
        what = f"{name} ({self.option})" if self.option else name
        return f"{what} is {value!r}: {self.why}; {self.cure}"


_DEADLINE: Final = "set BATCHORD_ITEM_TIMEOUT, or register the chain with a timeout"
_KILLED: Final = "a process that it kills costs each item that runs in it an attempt"
_JSON: Final = "messages are JSON, and a pickle in the queue must be refused"

#: Setting -> its rule. `worker_queues` and `worker_autoscale` are our names for the options -Q and
#: --autoscale, which have no setting.
RULES: Final[Mapping[str, Rule]] = {
    "task_time_limit": Rule(_KILLED, _DEADLINE, "--time-limit"),
    "task_soft_time_limit": Rule(
        "items have deadlines of their own, and it does not work in threads",
        _DEADLINE,
        "--soft-time-limit",
    ),
    "task_always_eager": Rule("items would run where they are published"),
    "task_acks_late": Rule("what a killed worker had taken would be lost from the queue"),
    "task_acks_on_failure_or_timeout": Rule(
        "the message of a failed item would not be acknowledged"
    ),
    "task_reject_on_worker_lost": Rule(
        "what a killed child had taken would be lost from the queue"
    ),
    "worker_deduplicate_successful_tasks": Rule(
        "a task that is delivered again after a crash would be taken as done, and its batch would "
        "wait for the sweep"
    ),
    "task_serializer": Rule(_JSON),
    "accept_content": Rule(_JSON),
    "result_backend": Rule(
        "a chord's body would not be sent", "keep results of your own elsewhere"
    ),
    "task_default_queue": Rule("workers and producers would not meet", "set BATCHORD_QUEUE"),
    "task_queues": Rule("a queue of a batch would have no worker", "set BATCHORD_QUEUE"),
    "task_routes": Rule(
        "tasks of a batch would go where no worker is", "route your own tasks alone"
    ),
    "broker_transport_options": Rule(
        "workers and producers would differ",
        "set BATCHORD_VISIBILITY_TIMEOUT or BATCHORD_SOCKET_TIMEOUT",
    ),
    "worker_pool": Rule(
        "items wait side by side on the event loop, or each in a forked child",
        "set BATCHORD_POOL to asyncio, threads or prefork",
        "-P",
    ),
    "worker_queues": Rule(
        "a queue of a batch would have no worker",
        "leave it out, or name all queues; BATCHORD_QUEUE sets them apart",
        "-Q, -X",
    ),
    "worker_autoscale": Rule(
        "the slots of a process stay as many as they are",
        "set --concurrency, or BATCHORD_POOL=prefork",
        "--autoscale",
    ),
}


def broken(found: Mapping[str, Any], usual: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return a line for each setting in `found` that breaks its rule.

    `found`: a worker's settings, as JSON values; settings that are missing have their usual values.
    `usual`: the settings of `create_app`.
    """
    return [
        rule.broken(name, found[name])
        for name, rule in RULES.items()
        if name in found and not _fits(name, found[name], usual.get(name), settings)
    ]


def _fits(name: str, value: Any, usual: Any, settings: Settings) -> bool:
    match name:
        case "task_routes":
            return not any(_routes(value, task) for task in (RUN_ITEMS, GATHER))
        case "task_queues" | "worker_queues":
            return value is None or set(settings.queues) <= {_name(queue) for queue in value}
        case "worker_pool":
            return value in (*POOLS, *POOLS.values(), "threads", "prefork", "processes")
        case "worker_autoscale":
            return value is None
        case "accept_content":
            return list(value) == list(usual)
        case _:
            return bool(value == usual)


def _name(queue: Any) -> str:
    return str(queue.get("name") if isinstance(queue, dict) else getattr(queue, "name", queue))


def _routes(routes: Any, task: str) -> bool:
    """Return whether a route may apply to the task: its pattern matches, or a function decides."""
    if not routes:
        return False
    if isinstance(routes, Mapping):
        return any(not isinstance(key, str) or fnmatchcase(task, key) for key in routes)
    if isinstance(routes, (list, tuple)):
        # A list of routers, or of (pattern, route) pairs.
        if len(routes) == 2 and isinstance(routes[0], str):
            return fnmatchcase(task, routes[0])
        return any(_routes(each, task) for each in routes)
    return True
