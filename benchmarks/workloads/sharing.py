"""Two batches side by side on the same slots: what does either get?"""

from typing import Final

from benchmarks import roster
from benchmarks.arena import Row
from benchmarks.stage import Entry, Stage, contest
from benchmarks.stats import between, grouped, middle, of, table

SECONDS: Final = 10
ALONE: Final = "nothing"

#: What runs beside, and how much of it may be in flight.
CASES: Final[tuple[tuple[str, str | None, int | None], ...]] = (
    (ALONE, None, None),
    ("another batch of them", "nap", None),
    ("calls of 200 ms, 10 a second", "limited", None),
    ("the same, max_concurrency=4", "limited", 4),
)


def run(stage: Stage) -> list[Row]:
    """Let items of 300 ms run beside each of them, on 20 slots."""
    entries = [
        Entry(
            case=case,
            competitor=roster.reader(),
            kind="llm",
            request={"do": "share", "beside": beside, "most": most, "seconds": SECONDS},
            warm_up=0,
        )
        for case, beside, most in CASES
    ]
    return contest(stage, entries)


def report(rows: list[Row]) -> dict[str, str]:
    """Items a second of either."""
    lines = []
    for (case,), runs in grouped(rows, "case").items():
        found = of(runs, "per_second")
        beside = "" if case == ALONE else middle(of(runs, "beside_per_second"))
        lines.append((case, middle(found), between(found), beside))
    header = ("beside items of 300 ms", "of these a second", "min-max", "of what is beside")
    return {"sharing": table(header, lines)}
