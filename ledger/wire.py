"""Names that producer and worker share: tasks, ids and message arguments."""

import re
import secrets

RUN_ITEMS = "batchord.run_items"
GATHER = "batchord.gather"

_BATCH_ID = re.compile(r"batch_[0-9a-f]{24}")


def new_batch_id() -> str:
    """A new id: `batch_` and 24 hex digits."""
    return f"batch_{secrets.token_hex(12)}"


def is_batch_id(text: str) -> bool:
    """Whether `text` has the form of a batch id; nothing else may enter a key or a path."""
    return _BATCH_ID.fullmatch(text) is not None


def task_id(batch_id: str, items: range) -> str:
    """The Celery task id of these items: the same however often they are published."""
    return f"{batch_id}:{items.start}" + (f"-{items.stop - 1}" if len(items) > 1 else "")


def shard_group_id(batch_id: str, shard: int) -> str:
    """The Celery group id of a shard."""
    return f"{batch_id}:shard-{shard}"


def gather_task_id(batch_id: str, shard: int) -> str:
    """The Celery task id of a shard's gather."""
    return f"{batch_id}:gather-{shard}"
