"""Pictures of the recorded runs: `python -m benchmarks.plots RESULTS_JSON FOLDER`.

Run by the peers' Python, which has matplotlib.
"""
# mypy: disable-error-code="import-not-found"

import json
import sys
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from benchmarks.stats import Row, Spread, grouped, number, of, rates
from benchmarks.wait import ideal

OURS: Final = "#2166ac"
OTHERS: Final = "#bbbbbb"
MIB: Final = 2**20


def main(results: Path, folder: Path) -> None:
    """Write a picture for each workload that has one."""
    workloads = json.loads(results.read_text())["workloads"]
    for name, draw in {"noop": noop, "llm": llm, "growth": growth, "scaling": scaling}.items():
        if name in workloads:
            figure = draw(workloads[name]["rows"])
            # Without the date and the version that would make every picture another one.
            figure.savefig(folder / f"bench-{name}.png", dpi=110, metadata={"Software": None})


def noop(rows: list[Row]) -> Figure:
    """Items a second of each competitor; points, as a logarithmic scale has no 0 for bars."""
    points = {name: rates(runs) for (name,), runs in grouped(rows, "competitor").items()}
    figure = Figure(figsize=(8, 0.4 * len(points) + 1), layout="constrained")
    axes = figure.subplots()
    for place, (name, found) in enumerate(points.items()):
        color = _color(name)
        axes.plot([found.least, found.most], [place, place], color=color, lw=2)
        axes.plot(found.median, place, "o", color=color)
        axes.annotate(number(found.median), (found.median, place - 0.2), ha="center", fontsize=8)
    axes.set_yticks(range(len(points)), list(points))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(0.08)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("items a second that do nothing, logarithmic (more is better)")
    return figure


def llm(rows: list[Row]) -> Figure:
    """Seconds for all calls, a bar a competitor; a line where the wait alone would end."""
    titles = {"llm": "200 ms each", "llm-tail": "mean 200 ms, up to 3 s"}
    figure = Figure(figsize=(13, 4), layout="constrained")
    panes = figure.subplots(1, len(titles))
    for axes, (case, title) in zip(panes, titles.items(), strict=True):
        mine = [row for row in rows if row["case"] == case]
        bars = {}
        for (name,), runs in grouped(mine, "competitor").items():
            if (found := of(runs, "seconds")) is not None:
                bars[name] = found
        _bars(axes, bars)
        items = mine[0]["items"]
        axes.axvline(ideal(case, items), color="black", ls=":", label="nothing but the wait")
        axes.legend(loc="lower right", fontsize=8)
        axes.set_xlabel(f"seconds for {items:,} calls, {title} (less is better)")
    return figure


def growth(rows: list[Row]) -> Figure:
    """Items a second by size; memory over time for the greatest size."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    (speed, memory) = figure.subplots(1, 2)
    sizes = grouped(rows, "items")
    found = [rates(runs).median for runs in sizes.values()]
    speed.plot([items for (items,) in sizes], found, "o-", color=OURS)
    speed.set_xscale("log")
    speed.set_ylim(bottom=0)
    speed.set_xlabel("items of the batch")
    speed.set_ylabel("items a second")
    greatest = max(rows, key=lambda row: row["items"])
    for name, label in (
        ("used_memory", "Redis, data"),
        ("rss_workers", "both workers"),
        ("rss_caller", "app"),
    ):
        points = [(s["t"], s[name] / MIB) for s in greatest["samples"] if s[name] is not None]
        memory.plot(*zip(*points, strict=True), label=label)
    memory.set_ylim(bottom=0)
    memory.set_xlabel(f"seconds, {greatest['items']:,} items")
    memory.set_ylabel("MiB")
    memory.legend()
    return figure


def scaling(rows: list[Row]) -> Figure:
    """Items a second by worker processes, relative to one; and what the server uses of a core."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    (speed, server) = figure.subplots(1, 2)
    for (case,), mine in grouped(rows, "case").items():
        counts = grouped(mine, "competitor")
        processes = [int(name) for (name,) in counts]
        found = [rates(runs).median for runs in counts.values()]
        speed.plot(processes, [rate / found[0] for rate in found], "o-", label=case)
        server.plot(processes, [_server(runs) for runs in counts.values()], "o-", label=case)
    speed.set_ylabel("items a second, relative to one process")
    server.set_ylabel("cores that the server uses")
    for axes in (speed, server):
        axes.set_ylim(bottom=0)
        axes.set_xticks(sorted({int(row["competitor"]) for row in rows}))
        axes.set_xlabel("worker processes")
    speed.legend(fontsize=8)
    return figure


def _server(runs: list[Row]) -> float:
    used = [row["cpu_server"] / row["seconds"] for row in runs if row["cpu_server"] is not None]
    return max(used, default=float("nan"))


def _bars(axes: Any, bars: dict[str, Spread]) -> None:
    names, found = list(bars), list(bars.values())
    around = [
        [each.median - each.least for each in found],
        [each.most - each.median for each in found],
    ]
    colors = [_color(name) for name in names]
    axes.barh(names, [each.median for each in found], xerr=around, color=colors)
    for place, each in enumerate(found):
        axes.annotate(f" {number(each.median)}", (each.most, place), va="center", fontsize=8)
    axes.margins(x=0.12)
    axes.invert_yaxis()


def _color(name: str) -> str:
    return OURS if name.startswith("Batchord") else OTHERS


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
