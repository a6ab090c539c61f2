"""A task that batches call at their end, and an app of someone else's whose workers run it."""

import os

from celery import Celery, Task, shared_task

from tests.chains_for_tests.basic import write_line

#: Only for a process that is told where; ours have an app of their own.
app = Celery("reports", broker=os.environ.get("REPORTS_BROKER", "redis://nowhere.invalid"))


@shared_task(bind=True, name="reports.note")  # type: ignore[untyped-decorator]
def note(self: Task, batch_id: str, path: str, word: str = "") -> None:
    """Append who was called, as which task, and with what."""
    write_line(path, f"{batch_id} {self.request.id} {word}".rstrip())
