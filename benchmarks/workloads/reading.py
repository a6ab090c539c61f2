"""Reading: ordered results, items as they end, and how far a batch is."""

from typing import Final

from benchmarks import roster
from benchmarks.arena import Row
from benchmarks.stage import Entry, Stage, contest
from benchmarks.stats import between, grouped, middle, number, of, rates, table

ITEMS: Final = 100_000
FEW: Final = 1_000
#: Two processes of ten items each that take 100 ms: an item ends about every 5 ms.
TRICKLE: Final = 2_000
NAP: Final = 0.1
LOOKS: Final = 200


def run(stage: Stage) -> list[Row]:
    """Read in three ways."""
    many, few = stage.sized(ITEMS), stage.sized(FEW)
    requests = (
        ("results", {"do": "read", "items": many}),
        ("as_completed", {"do": "delivery", "items": stage.sized(TRICKLE), "nap": NAP}),
        ("record", {"do": "progress", "items": few, "looks": LOOKS}),
        ("record", {"do": "progress", "items": many, "looks": LOOKS}),
    )
    rows = []
    for case, request in requests:
        entry = Entry(case=case, competitor=roster.reader(), kind="noop", request=request)
        rows += contest(stage, [entry], lambda match, entry: match.measure(**entry.request))
    return rows


def report(rows: list[Row]) -> dict[str, str]:
    """Seconds and milliseconds."""
    cases = grouped(rows, "case", "items")
    found = {case: [runs for (name, _), runs in cases.items() if name == case] for case, _ in cases}
    results = [
        (f"{runs[0]['items']:,}", middle(of(runs, "seconds")), between(of(runs, "seconds")),
         number(rates(runs).median))
        for runs in found["results"]
    ]  # fmt: skip
    delays = [
        (
            f"an item of {runs[0]['items']:,} as it ends, {number(rates(runs).median)} a second",
            *_percentiles(runs),
        )
        for runs in found["as_completed"]
    ]
    looks = [
        (f"how far a batch of {runs[0]['items']:,} is", *_percentiles(runs))
        for runs in found["record"]
    ]
    return {
        "reading-results": table(("results in order", "seconds", "min-max", "items/s"), results),
        "reading-delays": table(("", "median ms", "95 %", "99 %", "most"), delays + looks),
    }


def _percentiles(runs: list[Row]) -> list[str]:
    return [middle(of(runs, name)) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")]
