"""The view of a running batch: live in a terminal, else a line every few seconds.

It goes to stderr. Rich honours NO_COLOR. Without a terminal there are no control codes, even if
FORCE_COLOR asks for colours.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batchord.ledger.errors import LedgerUnavailable
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.storage.batch_stats import Progress
from batchord.output import cost_format, render
from batchord.producer import Batch
from batchord.producer.wait_steps import PATIENCE

#: Seconds between two looks at a batch, and between two lines where there is no terminal.
_LOOK: Final = 0.2
_LINE: Final = 5.0
#: Seconds between two looks at the workers of a batch that does not run.
_WORKERS: Final = 2.0

#: Codes of failures that are named, the most frequent first.
_CODES: Final = 5

#: Whether there is nothing more to follow.
Over = Callable[[BatchRecord], bool]


class Sight(NamedTuple):
    """The batch's state at one look."""

    record: BatchRecord
    progress: Progress
    #: Why this is what an earlier look has found; empty if it is not.
    stale: str = ""
    #: Why nothing of it runs; empty if something does, or if it is paused.
    waiting: str = ""


class Watch:
    """Looks at a batch again and again; bears a Redis that cannot be reached for a minute."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._heard = time.monotonic()
        self._last: Sight | None = None
        self._waiting, self._next_look = "", 0.0

    def look(self) -> Sight:
        """Return how the batch is now, or was while Redis could still be reached.

        Raises:
            LedgerUnavailable: there has been no answer for a minute, or never.
        """
        try:
            record, progress = self._batch.record(), self._batch.progress()
            sight = Sight(record, progress, waiting=self._why_waiting(record))
        except LedgerUnavailable as error:
            if self._last is None or time.monotonic() - self._heard > PATIENCE:
                raise
            return self._last._replace(stale=f"{error} (trying again)")
        self._heard, self._last = time.monotonic(), sight
        return sight

    def _why_waiting(self, record: BatchRecord) -> str:
        if record.status in (BatchStatus.PAUSED, BatchStatus.CANCELLING) or record.running:
            return ""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _WORKERS
            self._waiting = self._batch.why_waiting()
        return self._waiting


def follow(batch: Batch, out: Console, *, until_paused: bool = False) -> BatchRecord:
    """Show how the batch goes until it has ended; return its last record.

    `until_paused`: return also when the workers have paused it, as nothing can succeed.
    """

    def over(record: BatchRecord) -> bool:
        return record.status.ended or (until_paused and record.reason is not None)

    watch = Watch(batch)
    # Not `out.is_terminal`, which FORCE_COLOR makes true of a pipe.
    live = out.file.isatty() and not out.is_dumb_terminal
    return _live(watch, out, over) if live else _lines(watch, out, over)


def _live(watch: Watch, out: Console, over: Over) -> BatchRecord:
    # Drawn by us at each look: a thread that draws could be in the middle of it at a Ctrl-C.
    with Live(console=out, auto_refresh=False) as live:
        while True:
            sight = watch.look()
            live.update(view(sight), refresh=True)
            if over(sight.record):
                return sight.record
            time.sleep(_LOOK)


def _lines(watch: Watch, out: Console, over: Over) -> BatchRecord:
    shown, told = 0.0, ("", "", "")
    while True:
        sight = watch.look()
        record = sight.record
        news = sight.stale, render.paused(record), render.waits(sight.waiting)
        for before, now in zip(told, news, strict=True):
            if now and now != before:
                out.print(now, soft_wrap=True)
        told = news
        if over(record) or time.monotonic() - shown >= _LINE:
            counts = record.request_counts
            failed = f"{counts.failed} failed{_codes(sight.progress, brackets=True)}"
            parts = [f"{counts.done}/{counts.total} done", failed, *_pace(sight)]
            out.print(f"{record.chain}: {', '.join(filter(None, parts))}", soft_wrap=True)
            shown = time.monotonic()
        if over(record):
            return record
        time.sleep(_LOOK)


def view(sight: Sight) -> RenderableType:
    """Return what a terminal shows of it, however narrow it is."""
    record, counts = sight.record, sight.record.request_counts
    head = Text(record.chain, style="bold")
    head.append_text(Text.assemble(" ", render.status_of(record.status)))
    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    share = counts.done / counts.total if counts.total else 0.0
    bar.add_row(
        ProgressBar(total=max(1, counts.total), completed=counts.done),
        # Rounded down: 100% is all of them.
        f"{int(100 * share)}% {counts.done:,}/{counts.total:,}",
    )
    lines: list[RenderableType] = [head, bar, Text(" · ".join(filter(None, _facts(sight))))]
    if counts.failed:
        lines.append(Text(f"{counts.failed:,} failed{_codes(sight.progress)}", style="red"))
    troubles = filter(None, (render.paused(record), render.waits(sight.waiting), sight.stale))
    lines.extend(Text(trouble, style="yellow") for trouble in troubles)
    return Group(*lines)


def _facts(sight: Sight) -> list[str]:
    record = sight.record
    elapsed = render.duration(record)
    running = "" if record.status.ended else f"{record.running} running"
    return [*_pace(sight), running, "" if elapsed is None else f"{render.span(elapsed)} elapsed"]


def _pace(sight: Sight) -> list[str]:
    record, progress = sight.record, sight.progress
    eta = "" if progress.eta is None else f"ETA {render.span(progress.eta)}"
    there = render.at_provider(record)
    return [render.rate(record, progress), eta, there, cost_format.spent_briefly(record)]


def _codes(progress: Progress, *, brackets: bool = False) -> str:
    """Format the codes of failed items; empty if none has failed or was counted."""
    named = [f"{render.code(group.code)} {group.count:,}" for group in progress.failures[:_CODES]]
    more = len(progress.failures) - len(named)
    if more:
        named.append(f"and {more} more codes")
    said = ", ".join(named)
    if not said:
        return ""
    return f" ({said})" if brackets else f": {said}"
