"""100,000 short texts to vectors, at a server that answers at once."""

from typing import Final

from benchmarks import roster
from benchmarks.arena import Row
from benchmarks.stage import Entry, Stage, contest
from benchmarks.stats import between, cpu_ms, grouped, middle, number, of, rates, table

TEXTS: Final = 100_000

BARE: Final = roster.embedder("one bare asyncio loop, full requests", "bare")
COMPETITORS: Final = (
    roster.embedder("Embed().batch in one process", "embed"),
    roster.batchord("Batchord: a batch, two workers"),
    BARE,
)


def run(stage: Stage) -> list[Row]:
    """Let each embed all texts."""
    request = {"do": "run", "items": stage.sized(TEXTS)}
    return contest(
        stage,
        [
            Entry(case="embed", competitor=competitor, kind="embed", request=request)
            for competitor in COMPETITORS
        ],
    )


def report(rows: list[Row]) -> dict[str, str]:
    """Texts a second, beside the bare loop."""
    by_name = grouped(rows, "competitor")
    least = rates(by_name[(BARE.name,)]).median
    lines = [
        (
            name,
            f"{runs[0]['items']:,}",
            middle(of(runs, "seconds")),
            between(of(runs, "seconds")),
            number(rates(runs).median),
            number(rates(runs).median / least),
            cpu_ms(runs, "workers"),
            cpu_ms(runs, "server"),
            cpu_ms(runs, "caller"),
        )
        for (name,), runs in by_name.items()
    ]
    header = ("", "texts", "seconds", "min-max", "texts/s", "x the bare loop")
    return {"embed": table((*header, "CPU ms a text: workers", "server", "caller"), lines)}
