"""The result backend: the ledger counts the parts of a chord.

Celery's own backend aborts the chord when a header task raises (open since 2014,
https://github.com/celery/celery/issues/1881), counts tasks in keys of its own, and subscribes the
producer to a pub/sub channel per header task. Here the ledger knows which items have an outcome,
and the chord's body is due when all items of a shard have one.
"""

from typing import Any

from celery.backends.redis import RedisBackend
from celery.canvas import maybe_signature


class LedgerBackend(RedisBackend):
    """A backend that sends a chord's body when its shard is complete, and stores no results."""

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any
    ) -> None:
        """Send the body if the task has found its shard complete, also if the task failed."""
        if getattr(request, "shard_complete", False):
            maybe_signature(request.chord, app=self.app).apply_async()

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Store nothing, whatever the message asked for: an unknown task is an error."""
        return result

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Count nothing: the ledger does."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribe to nothing: results are read from the ledger."""

    def add_pending_result(self, result: Any, weak: bool = False, **kwargs: Any) -> Any:
        """Remember nothing: results are read from the ledger."""
        return result

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Save no header structure: ours is flat."""
