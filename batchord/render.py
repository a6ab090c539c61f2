"""What a person sees: progress while a batch runs, and tables of what came out.

Progress goes to stderr, what was asked for to stdout. Rich honours NO_COLOR and pipes.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from batchord import money
from ledger.models import BatchRecord, ChainRecord, Item, ItemStatus
from producer import Batch

#: Columns of a table that goes into a pipe or a file: a row stays one line.
_PIPE_WIDTH = 1_000

#: Columns of a terminal in which a list of batches has room for two columns more.
_WIDE, _USED = 110, ("tokens", "cost")

#: Seconds between two looks at a batch, and between two lines where there is no terminal.
_LOOK, _LINE = 0.2, 5.0

#: Whether there is nothing more to follow.
Over = Callable[[BatchRecord], bool]

_COLOURS = {
    "completed": "green",
    "succeeded": "green",
    "failed": "red",
    "expired": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "paused": "yellow",
}


def console(*, stderr: bool = False) -> Console:
    """Return where tables go; or, with `stderr`, progress and notes."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        highlight=False,
        # Names and texts are whatever a caller or a model wrote: shown, and never obeyed.
        markup=False,
        emoji=False,
        # A pipe has no width: a fixed one keeps ids and numbers whole for whatever reads them.
        width=None if stream.isatty() else _PIPE_WIDTH,
    )


def follow(batch: Batch, out: Console, *, until_paused: bool = False) -> BatchRecord:
    """Show progress until the batch has ended; return its last record.

    `until_paused`: return also when the workers have paused it, as nothing can succeed.
    """

    def over(record: BatchRecord) -> bool:
        return record.status.ended or (until_paused and record.reason is not None)

    return _bar(batch, out, over) if out.is_terminal else _lines(batch, out, over)


def why_paused(record: BatchRecord) -> str:
    """Say why the workers have paused a batch, in a line; empty unless they have."""
    reason = record.reason
    if reason is None:
        return ""
    where = "" if reason.index is None else f" (item {reason.index})"
    return f"Paused, {reason.code}: {_one_line(reason.message, 300)}{where}"


def at_provider(record: BatchRecord) -> str:
    """Say how far the provider's own batches are; empty unless they are under way."""
    if not record.provider_done or record.status.ended:
        return ""
    return f"{record.provider_done:,} answered at the provider"


def _bar(batch: Batch, out: Console, over: Over) -> BatchRecord:
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
        TextColumn("{task.fields[spent]}"),
    )
    with Progress(*columns, console=out) as progress:
        record = batch.record()
        bar = progress.add_task(
            record.chain, total=record.request_counts.total, rate="", failed="", spent=""
        )
        told = ""
        while True:
            if told != (told := why_paused(record)) and told:
                progress.console.print(told)
            counts = record.request_counts
            failed = f"[red]{counts.failed} failed" if counts.failed else ""
            spent = " ".join(filter(None, (at_provider(record), money.spent_briefly(record))))
            progress.update(
                bar, completed=counts.done, rate=_rate(record), failed=failed, spent=spent
            )
            if over(record):
                return record
            time.sleep(_LOOK)
            record = batch.record()


def _lines(batch: Batch, out: Console, over: Over) -> BatchRecord:
    shown, told = 0.0, ""
    while True:
        record = batch.record()
        if told != (told := why_paused(record)) and told:
            out.print(told, soft_wrap=True)
        if over(record) or time.monotonic() - shown >= _LINE:
            counts = record.request_counts
            used = ", ".join(filter(None, (at_provider(record), money.spent_briefly(record))))
            out.print(
                f"{record.chain}: {counts.done}/{counts.total} done, {counts.failed} failed, "
                f"{_rate(record)}{f', {used}' if used else ''}",
                soft_wrap=True,
            )
            shown = time.monotonic()
        if over(record):
            return record
        time.sleep(_LOOK)


def _rate(record: BatchRecord) -> str:
    seconds = duration(record)
    done = record.request_counts.done
    return f"{done / seconds:,.1f}/s" if seconds and done else "-/s"


def duration(record: BatchRecord) -> float | None:
    """Seconds from the seal to the end, or to now."""
    if record.in_progress_at is None:
        return None
    end = record.ended_at.timestamp() if record.ended_at else time.time()
    return max(0.001, end - record.in_progress_at.timestamp())


def results_table(items: Iterable[Item], *, rows: int, width: int) -> Table:
    """Return the first results in order, outputs cut to a line."""
    table = Table(title="Results", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("id", overflow="ellipsis", no_wrap=True, max_width=24)
    table.add_column("status", no_wrap=True)
    # The one column that may shrink; its text stays on one line all the same.
    table.add_column("output or error", max_width=width)
    for item in items:
        if table.row_count >= rows:
            break
        table.add_row(
            str(item.index),
            _name(item),
            _status(item.status),
            Text(_said(item), no_wrap=True, overflow="ellipsis"),
        )
    return table


def failures_table(items: Sequence[Item]) -> Table:
    """Return failed items with their typed errors."""
    table = Table(title="Failed items", title_justify="left", show_edge=False, pad_edge=False)
    for name in ("#", "id", "code", "step", "message"):
        table.add_column(name, overflow="fold", no_wrap=name in ("#", "code"))
    for item in items:
        error = item.error
        table.add_row(
            str(item.index),
            _name(item),
            Text(error.code if error else item.status, style="red"),
            Text(error.step or "-" if error else "-"),
            Text(_one_line(error.message, 160) if error else "-"),
        )
    return table


def errors_table(groups: "Counter[str]", examples: dict[str, Item]) -> Table:
    """Return how many items failed by code, most first, each with one example."""
    table = Table("code", "items", "first", "message", show_edge=False, pad_edge=False)
    for code, count in groups.most_common():
        item = examples[code]
        message = _one_line(item.error.message, 160) if item.error else "-"
        table.add_row(Text(code, style="red"), str(count), f"#{item.index}", Text(message))
    return table


def batches_table(records: Sequence[BatchRecord], *, width: int = _PIPE_WIDTH) -> Table:
    """Return batches, one a row; tokens and cost where there are any, and room for them."""
    table = Table(show_edge=False, pad_edge=False)
    used = width >= _WIDE and any(record.usage for record in records)
    names = ("id", "chain", "status", "done", "failed", *_USED[: 2 * used], "age")
    for name in names:
        right = name not in ("id", "chain", "status")
        # The one column that may shrink where the terminal is narrow.
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "chain")
    for record in records:
        counts = record.request_counts
        table.add_row(
            record.id,
            record.chain,
            _status(record.status),
            f"{counts.done}/{counts.total}",
            str(counts.failed),
            *((_tokens(record), money.cost(record)) if used else ()),
            _age(time.time() - record.created_at.timestamp()),
        )
    return table


def _tokens(record: BatchRecord) -> str:
    total = None if record.usage is None else record.usage.total_tokens
    return "" if total is None else money.short(total)


def chains_table(chains: Iterable[ChainRecord]) -> Table:
    """Return chains, one a row."""
    table = Table("chain", "input", "output", show_edge=False, pad_edge=False)
    for each in chains:
        table.add_row(each.name, _type(each.input_schema), _type(each.output_schema))
    return table


def summary(record: BatchRecord) -> Text:
    """Return one line: status, counts, tokens, cost, time."""
    counts, seconds = record.request_counts, duration(record)
    parts = [f"{counts.succeeded} succeeded", f"{counts.failed} failed"]
    parts += [f"{n} {name}" for name in ("cancelled", "expired") if (n := getattr(counts, name))]
    parts += filter(None, [at_provider(record)])
    parts += money.spent(record)
    if seconds is not None:
        parts.append(f"{seconds:,.1f} s ({_rate(record)})")
    text = Text(f"{record.id} ")
    text.append(record.status, style=_COLOURS.get(record.status, ""))
    text.append(f" · {counts.total} items: " + ", ".join(parts))
    if record.reason is not None:
        text.append("\n" + why_paused(record))
    return text


def as_json(value: object) -> str:
    """Return a value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def _status(status: str) -> Text:
    return Text(str(status), style=_COLOURS.get(status, ""))


def _name(item: Item) -> str:
    return "-" if item.custom_id is None else _one_line(item.custom_id, 64)


def _said(item: Item) -> str:
    if item.status is ItemStatus.SUCCEEDED:
        output = item.output
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    else:
        text = f"{item.error.code}: {item.error.message}" if item.error else ""
    return _one_line(text, 300)


def _one_line(text: str, length: int) -> str:
    # No control characters: a model's output must not move the cursor or colour the terminal.
    flat = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def _type(schema: dict[str, object] | None) -> str:
    if schema is None:
        return "any"
    return str(schema.get("title") or schema.get("type") or "any")
