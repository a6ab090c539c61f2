"""From raw rows to the words and numbers of a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """Median, least and most of some runs."""

    median: float
    least: float
    most: float


def spread(values: Iterable[float]) -> Spread:
    """Return median, least and most."""
    found = list(values)
    return Spread(median(found), min(found), max(found))


def of(rows: Iterable[Row], name: str) -> Spread | None:
    """Return the spread of a field; None where no row has it."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return spread(values) if values else None


def rates(rows: Iterable[Row]) -> Spread:
    """Return items a second."""
    return spread(row["items"] / row["seconds"] for row in rows)


def grouped(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Return the rows by the values of some fields, in the order in which these first come."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def number(value: float | None) -> str:
    """Return three figures that count, thousands apart; a question mark for what is unknown."""
    if value is None:
        return "?"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def between(found: Spread | None) -> str:
    """Return `least-most`."""
    return "?" if found is None else f"{number(found.least)}-{number(found.most)}"


def middle(found: Spread | None, by: float = 1.0) -> str:
    """Return the median, divided by `by`."""
    return number(None if found is None else found.median / by)


def cpu_ms(rows: Sequence[Row], *names: str) -> str:
    """Return milliseconds of CPU an item that these took together."""
    used = [
        1000 * sum(row[f"cpu_{name}"] for name in names) / row["items"]
        for row in rows
        if all(row.get(f"cpu_{name}") is not None for name in names)
    ]
    return number(median(used)) if used else "?"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table: the first column is text, the others are numbers."""
    rules = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rules, *lines))
