"""Answer Celery's remote control where it is about tasks of batches, or about the event loop."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from celery.utils.functional import maybe_list
from celery.worker.control import Panel

from batchord.ledger.core.message_ids import GATHER, RUN_ITEMS, batch_of_task, use_cancel
from batchord.worker.execution.worker_context import WorkerContext

logger = logging.getLogger(__name__)

#: `handler(state, **arguments)` returns the reply, which is `{"ok": ...}` or `{"error": ...}`.
Handler = Callable[..., Any]

#: Seconds that a loop may be late before its process counts as ill.
ILL: Final = 5.0
_DEADLINE: Final = "set BATCHORD_ITEM_TIMEOUT, or register the chain with a timeout"


def with_answers(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """Return the handlers of a worker, which refuse what does not apply to tasks of batches."""
    return {
        **handlers,
        "revoke": partial(_revoke, handlers["revoke"]),
        "terminate": partial(_revoke, handlers["terminate"]),
        "time_limit": partial(_time_limit, handlers["time_limit"]),
    }


def _revoke(celerys: Handler, state: Any, task_id: Any, **options: Any) -> Any:
    """Revoke what is no task of a batch; for the others, name `cancel` in the reply and the log."""
    ids = [str(each) for each in maybe_list(task_id) or []]
    others = [each for each in ids if batch_of_task(each) is None]
    refusals = [use_cancel(first) for first in _first_of_each_batch(ids)]
    answer = celerys(state, task_id=others, **options) if others else None
    for refusal in refusals:
        logger.warning("%s", refusal)
    return {"error": "; ".join(refusals)} if refusals else answer


def _first_of_each_batch(ids: Iterable[str]) -> list[str]:
    first: dict[str, str] = {}
    for each in ids:
        if batch_id := batch_of_task(each):
            first.setdefault(batch_id, each)
    return list(first.values())


def _time_limit(celerys: Handler, state: Any, task_name: Any = None, **options: Any) -> Any:
    """Refuse limits for tasks of batches: what they kill costs each item an attempt."""
    if task_name in (RUN_ITEMS, GATHER):
        return {"error": f"{task_name} takes no time limit: {_DEADLINE}"}
    return celerys(state, task_name=task_name, **options)


def answer_pings(runtime: WorkerContext) -> None:
    """Have this worker's answer to `celery inspect ping` be an error while its loop is blocked."""

    def ping(state: Any, **_: Any) -> Mapping[str, str]:
        """Answer pong, or an error that says how long the event loop has been blocked."""
        watchdog = runtime.watchdog
        late = 0.0 if watchdog is None else watchdog.lag.now()
        if late > ILL:
            return {"error": f"event loop blocked for {late:.1f} s"}
        return {"ok": "pong"}

    Panel.data["ping"] = ping
