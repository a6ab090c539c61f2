"""Runs that are kept under BATCHORD_HOME, as `list` shows them and `purge` drops them."""

from collections.abc import Sequence

from rich.table import Table

from batchord.local.run_state import RunRecord


def runs_table(runs: Sequence[RunRecord]) -> Table:
    """Return the runs, one a row; the same command goes on with one that is unfinished."""
    title = "Runs that the same `batchord run` goes on with"
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in ("id", "chain", "input", "output", "status", "done", "begun"):
        table.add_column(name, no_wrap=name == "id", overflow="fold")
    for run in runs:
        done = "-" if run.done is None else str(run.done)
        table.add_row(
            run.id,
            run.chain,
            run.input,
            run.output,
            run.status or "unfinished",
            f"{done}/{'-' if run.total is None else run.total}",
            f"{run.created_at.astimezone():%Y-%m-%d %H:%M}",
        )
    return table
