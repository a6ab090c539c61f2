"""Submitting many inputs of 100 bytes from a generator, while nobody works."""

from typing import Final

from benchmarks import roster
from benchmarks.arena import Match, Row
from benchmarks.stage import Entry, Stage, contest
from benchmarks.stats import between, grouped, middle, number, of, rates, table

#: Bytes of JSON of one input of the kind `text`.
PAYLOAD: Final = 100

MANY: Final = 100_000
MOST: Final = 1_000_000
#: Celery publishes less than a thousand a second.
FEW: Final = 20_000


def run(stage: Stage) -> list[Row]:
    """Submit in fresh processes, each to an empty server."""
    sizes = (
        (roster.submitter(), MANY, None),
        (roster.celery_submitter(), FEW, None),
        (roster.submitter(), MOST, 1),
        (roster.celery_submitter(), MANY, 1),
    )
    entries = [
        Entry(
            case="submit",
            competitor=competitor,
            kind="text",
            request={"do": "submit", "items": stage.sized(items)},
            repeats=repeats,
            warm_up=0,
        )
        for competitor, items, repeats in sizes
    ]
    return contest(stage, entries, _measure)


def _measure(match: Match, entry: Entry) -> Row:
    before = match.arena.used_memory()
    row = match.measure(kind=entry.kind, **entry.request)
    return {**row, "memory": match.arena.used_memory() - before}


def report(rows: list[Row]) -> dict[str, str]:
    """Seconds, and memory here and there."""
    lines = []
    for (name, items), runs in grouped(rows, "competitor", "items").items():
        for row in runs:
            row["overhead"] = row["memory"] / items - PAYLOAD
        found = of(runs, "seconds")
        lines.append(
            (
                name,
                f"{items:,}",
                middle(found),
                between(found),
                number(rates(runs).median),
                middle(of(runs, "overhead")),
                middle(of(runs, "rss_before"), 2**20),
                middle(of(runs, "rss_peak"), 2**20),
            )
        )
    memory = ("Redis bytes an item beside the input", "app's memory before, MiB", "its peak, MiB")
    header = ("", "inputs", "seconds", "min-max", "inputs/s", *memory)
    return {"submit": table(header, lines)}
