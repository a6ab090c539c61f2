"""A live view of a batch: a bar in a terminal, its HTML in a notebook."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from batchord.ledger.models import BatchRecord
from batchord.ledger.storage.batch_stats import Progress
from batchord.producer.notebook_html import batch_html

#: Shows how the batch is now, and why nothing of it runs, if nothing does.
Show = Callable[[BatchRecord, Progress, str], object]


@contextmanager
def live_view() -> Iterator[Show]:
    """Yield what shows a batch, in place of what it showed before."""
    if in_notebook():
        yield _notebook_view()
        return
    with _terminal_view() as show:
        yield show


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def _notebook_view() -> Show:
    from IPython import display

    typed: Any = display  # its functions have no types
    shown: list[Any] = []

    def show(record: BatchRecord, progress: Progress, waits: str) -> None:
        html = typed.HTML(batch_html(record, progress, waits))
        if shown:
            shown[0].update(html)
        else:
            shown.append(typed.display(html, display_id=True))

    return show


@contextmanager
def _terminal_view() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        TimeRemainingColumn(),
    )
    # Drawn at each news, and not by a thread: nothing else runs here for its sake.
    with Bar(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=None, said="")

        def show(record: BatchRecord, progress: Progress, waits: str) -> None:
            counts = record.request_counts
            said = waits or str(record.status)
            if counts.failed:
                codes = ", ".join(f"{each.code} {each.count:,}" for each in progress.failures[:5])
                said += f" · {counts.failed:,} failed ({codes})"
            bar.update(
                task,
                description=record.chain,
                total=counts.total,
                completed=counts.done,
                said=said,
                refresh=True,
            )

        yield show
