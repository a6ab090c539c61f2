"""Names that producer and worker share: tasks, ids and message arguments."""

import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

RUN_ITEMS = "batchord.run_items"
GATHER = "batchord.gather"

#: How kombu names the lists of a queue with priorities (kombu.transport.redis, `Channel`).
PRIORITY_STEPS: Final = (0, 3, 6, 9)
PRIORITY_SEPARATOR: Final = "\x06\x16"

#: More than any batch has items.
MOST = 2**31

_BATCH_ID = re.compile(r"batch_[0-9a-f]{24}")


def new_batch_id() -> str:
    """Generate a batch id: `batch_` and 24 hex digits."""
    return f"batch_{secrets.token_hex(12)}"


def is_batch_id(text: object) -> bool:
    """Whether `text` has the form of a batch id; nothing else may enter a key or a path."""
    return isinstance(text, str) and _BATCH_ID.fullmatch(text) is not None


def is_run(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether these are the arguments of a message that we publish for this task."""
    numbers = {RUN_ITEMS: ("shard", "index", "count"), GATHER: ("shard",)}[name]
    if arguments.keys() != {"batch_id", *numbers} or not isinstance(arguments["batch_id"], str):
        return False
    # `type`: a bool is an int as well.
    return is_batch_id(arguments["batch_id"]) and all(
        type(arguments[name]) is int and 0 <= arguments[name] < MOST for name in numbers
    )


def lists_of(queue: str) -> list[str]:
    """Return the Redis lists of a queue, one for each priority."""
    return [f"{queue}{PRIORITY_SEPARATOR}{step}" if step else queue for step in PRIORITY_STEPS]


def task_id(batch_id: str, items: range) -> str:
    """Return the Celery task id of these items, the same however often they are published."""
    return f"{batch_id}:{items.start}" + (f"-{items.stop - 1}" if len(items) > 1 else "")


def shard_group_id(batch_id: str, shard: int) -> str:
    """Return the Celery group id of a shard."""
    return f"{batch_id}:shard-{shard}"


def gather_task_id(batch_id: str, shard: int) -> str:
    """Return the Celery task id of a shard's gather."""
    return f"{batch_id}:gather-{shard}"


def batch_of_task(task_id: str) -> str | None:
    """Return the batch that a Celery task id of ours names; None for any other id."""
    batch_id, colon, _ = task_id.partition(":")
    return batch_id if colon and is_batch_id(batch_id) else None


def use_cancel(task_id: str) -> str:
    """Return the answer to revoking this task of Batchord's: use `cancel`."""
    batch_id = batch_of_task(task_id)
    return (
        f"task {task_id} cannot be revoked, batch={batch_id} goes on: "
        f"to stop it, run `batchord cancel {batch_id}`"
    )
