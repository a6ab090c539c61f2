"""2,000 calls of the OpenAI SDK over HTTP that take 200 ms each, 200 of them in flight."""

from typing import Final

from benchmarks import roster
from benchmarks.arena import Row
from benchmarks.ceiling import ceiling
from benchmarks.stage import Entry, Stage, contest, say
from benchmarks.stats import between, cpu_ms, grouped, middle, number, of, table
from benchmarks.wait import IN_FLIGHT, ideal

ITEMS: Final = 2_000
#: Of each of two processes.
EACH: Final = IN_FLIGHT // 2

FIXED: Final = (
    roster.batchord("Batchord", concurrency=EACH),
    roster.batchord("Batchord, 10 items a task", 10, concurrency=EACH),
    roster.celery_threads(EACH),
    roster.dramatiq("dramatiq group, results, AsyncIO", "asyncio", threads=EACH),
    roster.arq(max_jobs=EACH, poll_delay=0.05),
    roster.langchain("batch"),
    roster.langchain("abatch"),
    roster.bare(),
)
TAIL: Final = (
    roster.batchord("Batchord, 1 item a task", 1, concurrency=EACH),
    roster.batchord("Batchord, 10 items a task", 10, concurrency=EACH),
    roster.bare(),
)


def run(stage: Stage) -> list[Row]:
    """Measure the provider first, then each competitor in turn."""
    row = ceiling(stage.arena)
    say(row)
    items = stage.sized(ITEMS)
    entries = [
        Entry(case=kind, competitor=competitor, kind=kind, request={"do": "run", "items": items})
        for kind, competitors in (("llm", FIXED), ("llm-tail", TAIL))
        for competitor in competitors
    ]
    return [row, *contest(stage, entries)]


def report(rows: list[Row]) -> dict[str, str]:
    """Seconds for all calls, and what came on top of the wait."""
    return {
        "llm": _table([row for row in rows if row["case"] == "llm"]),
        "llm-tail": _table([row for row in rows if row["case"] == "llm-tail"]),
        "llm-provider": _provider([row for row in rows if row["case"] == "provider"]),
    }


def _table(rows: list[Row]) -> str:
    least = ideal(rows[0]["case"], rows[0]["items"])
    lines = [("nothing but the wait", number(least), "", "1.00", "", "", "")]
    for (name,), runs in grouped(rows, "competitor").items():
        found = of(runs, "seconds")
        used = (cpu_ms(runs, "workers"), cpu_ms(runs, "server"), cpu_ms(runs, "caller"))
        lines.append((name, middle(found), between(found), middle(found, least), *used))
    header = ("", "seconds", "min-max", "x the wait")
    return table((*header, "CPU ms an item: workers", "server", "caller"), lines)


def _provider(rows: list[Row]) -> str:
    lines = [
        (f"{row['items']:,}", number(row["items"] / row["seconds"]), cpu_ms([row], "llm"))
        for row in rows
    ]
    return table(("requests without any wait", "requests/s", "CPU ms a request"), lines)
