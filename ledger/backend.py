"""The result backend: a chord in which a failed part is a part like any other.

Celery's own aborts the chord when a header task raises (open since 2014, celery #1881), and
subscribes the producer to one pub/sub channel per header task. Here the truth is in the ledger:
the chord only counts parts, and nobody asks it for results.
"""

from typing import Any

from celery import states
from celery.backends.redis import RedisBackend


class LedgerBackend(RedisBackend):
    """Counts chord parts, failed ones included, and stores no results."""

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any
    ) -> None:
        """Count the part, whatever became of it; no result and no exception enters the chord."""
        if state in states.PROPAGATE_STATES:
            state = states.SUCCESS
        super().on_chord_part_return(request, state, None, propagate, **kwargs)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribe to nothing: results are read from the ledger."""

    def add_pending_result(self, result: Any, weak: bool = False, **kwargs: Any) -> Any:
        """Remember nothing: results are read from the ledger."""
        return result

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Save no header structure: ours is flat."""
