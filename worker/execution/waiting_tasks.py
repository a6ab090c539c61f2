"""The tasks of a process that have items waiting for a slot; their batches take turns."""

from collections import deque
from collections.abc import Iterator

from batchord.worker.execution.work_items import PendingItem, Slot, TaskState


class WaitingTasks:
    """Tasks with waiting items, by batch; the batch that is served next stands first."""

    def __init__(self) -> None:
        self._by_batch: dict[str, deque[TaskState]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_batch)

    def add(self, task_state: TaskState) -> None:
        """Let the items of a task wait, behind those of its batch."""
        self._by_batch.setdefault(task_state.batch_id, deque()).append(task_state)

    def fill_slot(self) -> list[PendingItem]:
        """Return the items of the next slot; that batch's turn comes again after the others'."""
        batch_id = next(iter(self._by_batch))
        tasks = self._by_batch.pop(batch_id)
        first = tasks[0]
        count = min(first.per_slot, len(first.waiting))
        slot = Slot(first, count)
        items = [
            PendingItem(slot, first.claim_request(first.waiting.popleft())) for _ in range(count)
        ]
        if not first.waiting:
            tasks.popleft()
        if tasks:
            self._by_batch[batch_id] = tasks  # behind the others
        return items

    def take_all(self) -> Iterator[TaskState]:
        """Take out every waiting item, and yield its task."""
        for tasks in self._by_batch.values():
            for task_state in tasks:
                while task_state.waiting:
                    task_state.waiting.popleft()
                    yield task_state
        self._by_batch.clear()
