"""The stage of a workload: its entries run interleaved, so that all see the same machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from benchmarks.arena import WARM_UP, Arena, Match, Row
from benchmarks.competitor import Competitor


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The arena, and how much is asked for: `scale` of the sizes, `repeats` of each run."""

    arena: Arena
    scale: float
    repeats: int

    def sized(self, items: int) -> int:
        """Return this many items of this scale, at least twenty."""
        return max(20, round(items * self.scale))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One competitor with one request to its caller, under the name of a case."""

    case: str
    competitor: Competitor
    kind: str
    request: dict[str, Any]
    #: Runs; None: as many as the stage asks for.
    repeats: int | None = None
    #: Of the same kind; 0 where nobody works.
    warm_up: int = field(default=WARM_UP)


Measure = Callable[[Match, Entry], Row]


def measure(match: Match, entry: Entry) -> Row:
    """Ask once."""
    return match.measure(kind=entry.kind, **entry.request)


def contest(stage: Stage, entries: Sequence[Entry], how: Measure = measure) -> list[Row]:
    """Return a row for each run: each entry once, then each a second time, and so on."""
    rows = []
    for turn in range(stage.repeats):
        for entry in entries:
            if turn >= (stage.repeats if entry.repeats is None else entry.repeats):
                continue
            with stage.arena.match(entry.competitor) as match:
                if entry.warm_up:
                    match.warm(entry.kind, entry.warm_up)
                row = {"case": entry.case, "turn": turn + 1, **how(match, entry)}
            rows.append(row)
            say(row)
    return rows


def say(row: Row) -> None:
    """Show a row as it comes."""
    took = f"{row['seconds']:8.2f} s" if "seconds" in row else " " * 10
    items = row.get("items", "")
    who = f"{row['case']}: {row['competitor']}"
    click.echo(f"  {who:<56} {items:>9} items {took}", err=True)
