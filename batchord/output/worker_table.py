"""The workers that are alive, a row for each."""

import time

from rich.table import Table
from rich.text import Text

from batchord.ledger.storage.fleet import LATE, Beat, Fleet
from batchord.output import render

#: Chains of a worker that are named; the others are counted.
_NAMED = 5


def table(fleet: Fleet) -> Table:
    """Return the workers by name, with what each runs and what is wrong with it."""
    found = Table(show_edge=False, pad_edge=False)
    for name in ("worker", "pid", "batchord", "busy", "lag", "up for", "chains"):
        right = name in ("pid", "busy", "lag", "up for")
        found.add_column(
            name,
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=name not in ("worker", "chains"),
        )
    for process, beat in sorted(fleet.workers.items(), key=lambda pair: (pair[1].name, pair[0])):
        found.add_row(*_row(process, beat))
    return found


def _row(process: str, beat: Beat) -> tuple[Text | str, ...]:
    late = beat.loop_lag is not None and beat.loop_lag > LATE
    drained = beat.name and not beat.queues
    return (
        Text(f"{beat.name or process}{' (drained)' if drained else ''}"),
        process.rpartition(":")[2],
        Text(beat.version or "?"),
        f"{beat.in_flight}/{beat.slots}",
        Text("-" if beat.loop_lag is None else f"{beat.loop_lag:.1f} s", "red" if late else ""),
        "-" if beat.since is None else render.span(time.time() - beat.since.timestamp()),
        Text(_chains(beat)),
    )


def _chains(beat: Beat) -> str:
    names = [
        name if chain.version is None else f"{name} {render.one_line(chain.version, 32)}"
        for name, chain in sorted(beat.chains.items())
    ]
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f", and {more} more" if more > 0 else "")
