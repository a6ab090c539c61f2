"""Ten items right behind many others: how long do they take, and how long does the queue get?"""

from typing import Final

from benchmarks import roster
from benchmarks.arena import Match, Row
from benchmarks.sampler import Sampler
from benchmarks.stage import Entry, Stage, contest
from benchmarks.stats import between, grouped, middle, of, table

FEW: Final = 10

#: Who, how many, and how many times: a queue of calls that is served in turn takes a minute.
CASES: Final = (
    ("noop", roster.batchord("Batchord"), 100_000, None),
    ("noop", roster.celery_tuned(), 20_000, None),
    ("noop", roster.dramatiq("dramatiq group, results"), 20_000, None),
    ("llm", roster.batchord("Batchord", concurrency=100), 20_000, None),
    ("llm", roster.celery_threads(), 20_000, 1),
    ("llm", roster.dramatiq("dramatiq group, results", "asyncio", threads=100), 20_000, 1),
)


def run(stage: Stage) -> list[Row]:
    """Submit a crowd, then the few; what is left of the crowd is dropped."""
    entries = [
        Entry(
            case=kind,
            competitor=competitor,
            kind=kind,
            request={"do": "crowd", "items": stage.sized(items), "behind": FEW},
            repeats=repeats,
        )
        for kind, competitor, items, repeats in CASES
    ]
    return contest(stage, entries, _measure)


def _measure(match: Match, entry: Entry) -> Row:
    with Sampler(match, every=0.05) as sampler:
        row = match.measure(kind=entry.kind, **entry.request)
    return {**row, "queued": sampler.most("queued")}


def report(rows: list[Row]) -> dict[str, str]:
    """Seconds until the ten are done."""
    lines = []
    for (kind, name), runs in grouped(rows, "case", "competitor").items():
        found = of(runs, "seconds")
        what = "calls of 200 ms" if kind == "llm" else "items that do nothing"
        crowd = (f"{runs[0]['items']:,} {what}", middle(of(runs, "in_front")))
        lines.append((name, *crowd, middle(found), between(found), middle(of(runs, "queued"))))
    crowd = ("submitted before", "of these not done then")
    header = ("", *crowd, f"seconds for {FEW} behind", "min-max", "longest queue, messages")
    return {"fairness": table(header, lines)}
