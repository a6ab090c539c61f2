"""Ten, a hundred and a thousand thousand items: does an item cost the same, does memory stay?"""

from typing import Final

from benchmarks import roster
from benchmarks.arena import Match, Row
from benchmarks.sampler import Sampler
from benchmarks.stage import Entry, Stage, contest
from benchmarks.stats import grouped, middle, number, of, rates, table

SIZES: Final = ((10_000, None), (100_000, None), (1_000_000, 1))

#: Samples kept of a run: enough for a plot.
SAMPLES: Final = 300


def run(stage: Stage) -> list[Row]:
    """Run batches of growing size; the greatest once."""
    entries = [
        Entry(
            case="growth",
            competitor=roster.batchord("Batchord"),
            kind="noop",
            request={"do": "run", "items": stage.sized(items)},
            repeats=repeats,
        )
        for items, repeats in SIZES
    ]
    return contest(stage, entries, _measure)


def _measure(match: Match, entry: Entry) -> Row:
    before = match.arena.used_memory()
    with Sampler(match, every=0.25) as sampler:
        row = match.measure(kind=entry.kind, **entry.request)
    most = sampler.most("used_memory")
    return {
        **row,
        "memory_most": None if most is None else most - before,
        "memory_after": match.arena.used_memory() - before,
        "rss_workers": sampler.most("rss_workers"),
        "rss_caller": sampler.most("rss_caller"),
        "samples": sampler.samples[:: len(sampler.samples) // SAMPLES + 1],
    }


def report(rows: list[Row]) -> dict[str, str]:
    """Items a second, and memory."""
    groups = grouped(rows, "items")
    first = rates(next(iter(groups.values()))).median
    lines = []
    for (items,), runs in groups.items():
        rate = rates(runs).median
        for row in runs:
            row["most"] = None if row["memory_most"] is None else row["memory_most"] / items
            row["after"] = row["memory_after"] / items
        lines.append(
            (
                f"{items:,}",
                middle(of(runs, "seconds")),
                number(rate),
                number(first / rate),
                middle(of(runs, "most")),
                middle(of(runs, "after")),
                middle(of(runs, "rss_workers"), 2**20),
                middle(of(runs, "rss_caller"), 2**20),
            )
        )
    speed = ("items", "seconds", "items/s", "time an item, x the first line")
    memory = ("Redis bytes an item, most", "after", "both workers, MiB at most", "app, MiB at most")
    return {"growth": table((*speed, *memory), lines)}
