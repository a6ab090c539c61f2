"""One batch as it stands, a line for each thing to know."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from batchord.ledger.models import BatchRecord
from batchord.ledger.storage.batch_stats import MOST_ATTEMPTS, Progress
from batchord.output import cost_format, render

#: What a program is told beside the record, whose fields the rest are.
_PROGRESS = {
    *("rate", "eta", "failures", "latency_p50", "latency_p95"),
    *("attempts", "restarts", "retried"),
}


def as_json(record: BatchRecord, progress: Progress, waiting: str = "") -> str:
    """Return the record as one line of JSON, with how it goes as `progress`.

    `waiting`: why nothing of it runs; None there if something does.
    """
    fields = record.model_dump(mode="json")
    fields["why_waiting"] = waiting or None
    fields["progress"] = progress.model_dump(mode="json", include=_PROGRESS)
    return json.dumps(fields, ensure_ascii=False)


def table(record: BatchRecord, progress: Progress, waiting: str = "") -> RenderableType:
    """Return what is known of it; what is not known has no line.

    `waiting`: why nothing of it runs.
    """
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in _rows(record, progress):
        grid.add_row(name, value)
    lines: list[RenderableType] = [Text(record.id, style="bold"), grid]
    if why := render.paused(record) or render.waits(waiting):
        lines.append(Text(why, style="yellow"))
    return Group(*lines)


def _rows(record: BatchRecord, progress: Progress) -> Iterator[tuple[str, Text | str]]:
    counts = record.request_counts
    share = f" ({int(100 * counts.done / counts.total)}%)" if counts.total else ""
    version = record.chain_version
    said = "" if version is None else f", version {render.one_line(version, 64)}"
    yield "chain", record.chain + said
    yield "status", render.status_of(record.status)
    yield "done", f"{counts.done:,} of {counts.total:,}{share}"
    yield "succeeded", f"{counts.succeeded:,}"
    for name in ("failed", "cancelled", "expired"):
        if count := getattr(counts, name):
            yield name, Text(f"{count:,}", style="red" if name == "failed" else "yellow")
    for group in progress.failures:
        first = ", ".join(f"#{index}" for index in group.first)
        yield "", Text(f"{render.code(group.code)} {group.count:,} (first: {first})", style="red")
    if not record.status.ended:
        yield "running", f"{record.running:,}"
    yield "rate", render.rate(record, progress)
    if progress.eta is not None:
        yield "ETA", render.span(progress.eta)
    if progress.latency_p50 is not None and progress.latency_p95 is not None:
        yield "latency", f"p50 {progress.latency_p50:,.2f} s, p95 {progress.latency_p95:,.2f} s"
    if len(progress.attempts) > 1:
        taken = (
            (n, f"{tries} or more" if tries == MOST_ATTEMPTS else tries)
            for tries, n in progress.attempts.items()
        )
        yield "attempts", ", ".join(f"{n:,} took {tries}" for n, tries in taken)
    if used := cost_format.spent(record):
        yield "used", ", ".join(used)
    if record.usage is not None and record.usage.rate_limit_waits:
        held = render.span((record.usage.rate_limit_wait_ms or 0) / 1000)
        yield "held back", f"{record.usage.rate_limit_waits:,} calls for rate limits, {held} in all"
    yield from _times(record)
    for key, value in record.metadata.items():
        yield "metadata", Text(f"{render.one_line(key, 64)}={render.one_line(value, 512)}")
    if record.idempotency_key is not None:
        yield "key", Text(render.one_line(record.idempotency_key, 512))


def _times(record: BatchRecord) -> Iterator[tuple[str, str]]:
    yield "created", _time(record.created_at)
    if record.ended_at is None and record.expires_at is not None:
        yield "expires", _time(record.expires_at)
    if record.ended_at is not None:
        yield "ended", _time(record.ended_at)
    seconds = render.duration(record)
    if seconds is not None:
        yield "elapsed", render.span(seconds)


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
