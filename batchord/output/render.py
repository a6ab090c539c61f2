"""Tables and lines about batches, items and chains for people.

The result of a command goes to stdout, notes to stderr. Rich honours NO_COLOR and pipes.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from batchord.io import openai_lines
from batchord.ledger.models import BatchRecord, BatchStatus, ChainRecord, Item, ItemStatus
from batchord.ledger.storage.batch_stats import Progress
from batchord.ledger.storage.failures import FailureSum
from batchord.output import cost_format

#: Columns of a table that goes into a pipe or a file: a row stays one line.
_PIPE_WIDTH = 1_000

#: Columns of a terminal in which a list of batches has room for two columns more.
_WIDE, _USED = 110, ("tokens", "cost")

#: Columns of a terminal in which it has too little room for its columns.
_NARROW = 80

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


def why_paused(record: BatchRecord) -> str:
    """Say why the workers have paused a batch, in a line; empty unless they have."""
    reason = record.reason
    if reason is None:
        return ""
    where = "" if reason.index is None else f" (item {reason.index})"
    return f"Paused, {code(reason.code)}: {one_line(reason.message, 300)}{where}"


def at_provider(record: BatchRecord) -> str:
    """Say how far the provider's own batches are; empty unless they are under way."""
    if not record.provider_done or record.status.ended:
        return ""
    return f"{record.provider_done:,} answered at the provider"


def paused(record: BatchRecord) -> str:
    """Say why a batch is paused, or how to go on if someone did it; empty if it is not."""
    if record.status is not BatchStatus.PAUSED:
        return ""
    return why_paused(record) or f"Paused by someone: batchord resume {record.id} goes on"


def waits(why: str) -> str:
    """Say why nothing of a batch runs; empty if `why` is."""
    return f"Waits: {one_line(why, 400)}" if why else ""


def rate(record: BatchRecord, progress: Progress | None = None) -> str:
    """Say how fast it goes now; once it has ended, how fast it was altogether."""
    if progress is not None and not record.status.ended:
        return "-/s" if progress.rate is None else f"{progress.rate:,.1f}/s"
    seconds = duration(record)
    done = record.request_counts.done
    return f"{done / seconds:,.1f}/s" if seconds and done else "-/s"


def span(seconds: float) -> str:
    """Say a time as a clock does: 0:07, 1:02:03, 2d 03:04:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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
            status_of(item.status),
            Text(said(item), no_wrap=True, overflow="ellipsis"),
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
            Text(code(error.code) if error else item.status, style="red"),
            Text(error.step or "-" if error else "-"),
            Text(one_line(error.message, 160) if error else "-"),
        )
    return table


def errors_table(groups: "Counter[str]", examples: dict[str, Item]) -> Table:
    """Return how many items failed by code, most first, each with one example."""
    table = Table("code", "items", "first", "message", show_edge=False, pad_edge=False)
    for name, count in groups.most_common():
        item = examples[name]
        message = one_line(item.error.message, 160) if item.error else "-"
        table.add_row(Text(code(name), style="red"), str(count), f"#{item.index}", Text(message))
    return table


def failure_sums_table(sums: Iterable[FailureSum]) -> Table:
    """Return what has failed across batches, a row for each chain and code."""
    table = Table(show_edge=False, pad_edge=False)
    for name in ("chain", "code", "items", "batches", "newest"):
        right = name in ("items", "batches")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for one in sums:
        first = ", ".join(f"#{index}" for index in one.first)
        newest = f"{one.batch_id} {first}"
        error = Text(code(one.code), style="red")
        table.add_row(one.chain, error, f"{one.items:,}", f"{one.batches:,}", newest)
    return table


def batches_table(records: Sequence[BatchRecord], *, width: int = _PIPE_WIDTH) -> RenderableType:
    """Return batches, one a row; tokens and cost where there are any, and room for them.

    Where a row has no room at all, a batch is two lines: its id, and the rest.
    """
    if width < _NARROW:
        return Group(*(_two_lines(record) for record in records))
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
            status_of(record.status),
            f"{counts.done}/{counts.total}",
            str(counts.failed),
            *((_tokens(record), cost_format.cost(record)) if used else ()),
            _age(time.time() - record.created_at.timestamp()),
        )
    return table


def _two_lines(record: BatchRecord) -> Text:
    counts = record.request_counts
    failed = f" · {counts.failed} failed" if counts.failed else ""
    return Text.assemble(
        f"{record.id}\n  {record.chain} · ",
        status_of(record.status),
        f" · {counts.done}/{counts.total}{failed}"
        f" · {_age(time.time() - record.created_at.timestamp())}",
    )


def _tokens(record: BatchRecord) -> str:
    total = None if record.usage is None else record.usage.total_tokens
    return "" if total is None else cost_format.short(total)


def chains_table(chains: Iterable[tuple[ChainRecord, int]]) -> Table:
    """Return chains, one a row, each with the number of live workers that have it."""
    table = Table(show_edge=False, pad_edge=False)
    for name in ("chain", "input", "output", "workers"):
        table.add_column(name, justify="right" if name == "workers" else "left")
    for each, workers in chains:
        table.add_row(each.name, _type(each.input_schema), _type(each.output_schema), str(workers))
    return table


def summary(record: BatchRecord) -> Text:
    """Return one line: status, counts, tokens, cost, time."""
    counts, seconds = record.request_counts, duration(record)
    parts = [f"{counts.succeeded} succeeded", f"{counts.failed} failed"]
    parts += [f"{n} {name}" for name in ("cancelled", "expired") if (n := getattr(counts, name))]
    parts += filter(None, [at_provider(record)])
    parts += cost_format.spent(record)
    if seconds is not None:
        parts.append(f"{seconds:,.1f} s ({rate(record)})")
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


def status_of(status: str) -> Text:
    """Return the status in its colour."""
    return Text(str(status), style=_COLOURS.get(status, ""))


def _name(item: Item) -> str:
    return "-" if item.custom_id is None else one_line(item.custom_id, 64)


def said(item: Item) -> str:
    """Return an item's output, or its error, on one line."""
    if item.status is ItemStatus.SUCCEEDED:
        output = openai_lines.gist(item.output)
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    else:
        text = f"{item.error.code}: {item.error.message}" if item.error else ""
    return one_line(text, 300)


def code(text: str) -> str:
    """Return the code of an error, which a chain may have made up, as a word to be shown."""
    return one_line(text, 60)


def one_line(text: str, length: int) -> str:
    """Return the text on one line, cut to a length."""
    # No control characters: a model's output must not move the cursor or colour the terminal.
    flat = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def _type(schema: dict[str, object] | None) -> str:
    if schema is None:
        return "any"
    return str(schema.get("title") or schema.get("type") or "any")
