"""One, two and four worker processes on one server: what is the limit, workers or server?"""

from typing import Final, Literal

from benchmarks import roster
from benchmarks.arena import Row
from benchmarks.competitor import Competitor
from benchmarks.stage import Entry, Stage, contest
from benchmarks.stats import between, grouped, number, rates, spread, table

PROCESSES: Final = (1, 2, 4)

CASES: Final[tuple[tuple[str, str, int | Literal["auto"], int], ...]] = (
    ("nothing to do", "noop", "auto", 20_000),
    ("nothing to do, 1 item a task", "noop", 1, 5_000),
    ("calls of 200 ms, 100 in flight a process", "llm", "auto", 2_000),
)


def _competitor(processes: int, kind: str, per_task: int | Literal["auto"]) -> Competitor:
    concurrency = 100 if kind == "llm" else 32
    return roster.batchord(f"{processes}", per_task, processes=processes, concurrency=concurrency)


def run(stage: Stage) -> list[Row]:
    """Run each case with each number of processes."""
    entries = [
        Entry(
            case=case,
            competitor=_competitor(processes, kind, per_task),
            kind=kind,
            request={"do": "run", "items": stage.sized(items)},
        )
        for case, kind, per_task, items in CASES
        for processes in PROCESSES
    ]
    return contest(stage, entries)


def report(rows: list[Row]) -> dict[str, str]:
    """Items a second, and who uses how much of a core."""
    lines = []
    for (case, processes), runs in grouped(rows, "case", "competitor").items():
        found = rates(runs)
        cores = [_cores(runs, name) for name in ("workers", "server", "caller")]
        lines.append((case, processes, number(found.median), between(found), *cores))
    header = ("", "worker processes", "items/s", "min-max", "cores used by workers")
    return {"scaling": table((*header, "by the server", "by the app"), lines)}


def _cores(runs: list[Row], name: str) -> str:
    used = [row[f"cpu_{name}"] / row["seconds"] for row in runs if row[f"cpu_{name}"] is not None]
    return number(spread(used).median) if used else "?"
