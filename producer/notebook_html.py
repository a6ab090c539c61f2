"""How a batch and its results look in a notebook: HTML without scripts, all texts escaped."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from batchord.chains import Usage
from batchord.ledger.models import BatchRecord, BatchStatus, Item, ItemStatus
from batchord.ledger.storage.batch_stats import Progress

#: Items of a table, codes of failures, and characters of a cell that are shown.
ROWS: Final = 20
_CODES: Final = 5
_CELL: Final = 300

#: Colours that are read on light and on dark pages.
_GREEN, _RED, _GREY, _BLUE, _AMBER = "#2e9e5b", "#d64545", "#8a8f98", "#3b7dd8", "#c98a12"
_STATUS: Final = {
    BatchStatus.COMPLETED: _GREEN,
    BatchStatus.FAILED: _RED,
    BatchStatus.PAUSED: _AMBER,
    BatchStatus.IN_PROGRESS: _BLUE,
}
_OUTCOME: Final = {
    ItemStatus.SUCCEEDED: _GREEN,
    ItemStatus.FAILED: _RED,
    ItemStatus.RUNNING: _BLUE,
}


def batch_html(record: BatchRecord, progress: Progress, waits: str = "") -> str:
    """Return the batch: its status, a bar of its counts, tokens and cost, failures by code.

    `waits`: why nothing of it runs, and the cure.
    """
    counts = record.request_counts
    colour = _STATUS.get(record.status, _GREY)
    if record.status is BatchStatus.COMPLETED and counts.failed:
        colour = _AMBER  # not all green: some of it has failed
    facts = [f"{counts.done:,} of {counts.total:,} done", *_counts(record), *_used(record.usage)]
    if progress.eta is not None:
        facts.append(f"{progress.eta:,.0f} s left")
    lines = [
        f"<div><b>{_text(record.chain)}</b> {_badge(str(record.status), colour)} "
        f'<code style="opacity:.7">{_text(record.id)}</code></div>',
        _bar(record),
        f"<div>{' · '.join(facts)}</div>",
        *_failures(progress),
    ]
    if waits:
        lines.append(f'<div style="color:{_AMBER}">{_text(waits)}</div>')
    return f'<div style="max-width:44em;line-height:1.6">{"".join(lines)}</div>'


def results_html(items: Iterable[Item], total: int) -> str:
    """Return the items as a table, in their order; `total` is how many the batch has."""
    shown = list(items)
    named = any(item.custom_id is not None for item in shown)
    head = ["#", *(["id"] if named else []), "status", "output or error"]
    rows = [_row(item, named=named) for item in shown]
    more = total - len(shown)
    note = f"<div>and {more:,} more</div>" if more > 0 else ""
    return _table(head, rows) + note


def _row(item: Item, *, named: bool) -> list[str]:
    said: Any = item.output
    if item.error is not None:
        said = f"{item.error.code}: {item.error.message}"
    badge = _badge(str(item.status), _OUTCOME.get(item.status, _GREY))
    name = [_text(item.custom_id or "")] if named else []
    return [str(item.index), *name, badge, "" if said is None else _text(_plain(said))]


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list, int, float)):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)  # of the type that the batch is read with


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Build a table; its cells are HTML already."""
    body = "".join(_line("td", row) for row in rows)
    return f"<table><thead>{_line('th', head)}</thead><tbody>{body}</tbody></table>"


def _line(tag: str, cells: Sequence[str]) -> str:
    style = "text-align:left;vertical-align:top"
    return f"<tr>{''.join(f'<{tag} style={style!r}>{cell}</{tag}>' for cell in cells)}</tr>"


def _counts(record: BatchRecord) -> Iterable[str]:
    counts = record.request_counts
    for name in ("succeeded", "failed", "cancelled", "expired"):
        if number := getattr(counts, name):
            yield f"{number:,} {name}"
    if record.running and not record.status.ended:
        yield f"{record.running:,} running"


def _used(usage: Usage | None) -> Iterable[str]:
    if usage is None:
        return
    if usage.total_tokens is not None:
        yield f"{usage.total_tokens:,} tokens"
    if usage.cost_usd is not None:
        yield f"${usage.cost_usd:,.4g}"
    elif usage.unpriced_requests:
        yield "cost unknown"


def _bar(record: BatchRecord) -> str:
    counts = record.request_counts
    parts = (
        (counts.succeeded, _GREEN),
        (counts.failed, _RED),
        (counts.cancelled + counts.expired, _GREY),
        (0 if record.status.ended else record.running, _BLUE),
    )
    filled = "".join(
        f'<div style="width:{100 * number / max(1, counts.total):.2f}%;background:{colour}"></div>'
        for number, colour in parts
        if number
    )
    return (
        '<div style="display:flex;height:.7em;margin:.3em 0;border-radius:.35em;overflow:hidden;'
        f'background:rgba(128,128,128,.25)">{filled}</div>'
    )


def _failures(progress: Progress) -> Iterable[str]:
    for group in progress.failures[:_CODES]:
        first = ", ".join(f"#{index}" for index in group.first)
        yield (
            f'<div style="color:{_RED}">{group.count:,} {_text(group.code)} '
            f'<span style="opacity:.7">(first: {first})</span></div>'
        )
    if (more := len(progress.failures) - _CODES) > 0:
        yield f"<div>and {more} more codes</div>"


def _badge(word: str, colour: str) -> str:
    return (
        f'<span style="border:1px solid {colour};color:{colour};border-radius:.6em;'
        f'padding:0 .5em">{_text(word)}</span>'
    )


def _text(text: str) -> str:
    """Escape a text that a caller or a model wrote, cut to a cell's length."""
    return escape(text if len(text) <= _CELL else text[: _CELL - 1] + "…")
