"""10,000 items that do nothing: what an item costs beside the work itself."""

from typing import Final

from benchmarks import roster
from benchmarks.arena import Row
from benchmarks.stage import Entry, Stage, contest
from benchmarks.stats import between, cpu_ms, grouped, number, rates, table

ITEMS: Final = 10_000
#: With its defaults Celery's `get` looks at every part again at each step: a tenth of an hour.
FEW: Final = 2_000

REFERENCE: Final = "Celery chord, tuned"

COMPETITORS: Final = (
    (roster.batchord("Batchord"), ITEMS),
    (roster.batchord("Batchord, 1 item a task", 1), ITEMS),
    (roster.batchord("Batchord, 50 items a task", 50), ITEMS),
    (roster.celery_default(), FEW),
    (roster.celery_tuned(), ITEMS),
    (roster.celery_tuned("Celery chord, tuned, chunks of 50", chunk=50), ITEMS),
    (roster.dramatiq("dramatiq group, results"), ITEMS),
    (roster.dramatiq("dramatiq, no results", "no results"), ITEMS),
    (roster.arq(), ITEMS),
)


def run(stage: Stage) -> list[Row]:
    """Run each competitor in turn."""
    return contest(
        stage,
        [
            Entry(
                case="noop",
                competitor=competitor,
                kind="noop",
                request={"do": "run", "items": stage.sized(items)},
            )
            for competitor, items in COMPETITORS
        ],
    )


def report(rows: list[Row]) -> dict[str, str]:
    """Items a second, and CPU an item."""
    groups = grouped(rows, "competitor")
    base = rates(groups[REFERENCE,]).median
    lines = []
    for (name,), runs in groups.items():
        found = rates(runs)
        lines.append(
            (
                name,
                f"{runs[0]['items']:,}",
                number(found.median),
                between(found),
                f"{number(found.median / base)}",
                cpu_ms(runs, "workers"),
                cpu_ms(runs, "server"),
                cpu_ms(runs, "caller"),
            )
        )
    header = ("", "items", "items/s", "min-max", f"x {REFERENCE}")
    used = ("CPU ms an item: workers", "server", "caller")
    return {"noop": table((*header, *used), lines)}
