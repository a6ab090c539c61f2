"""All workloads by name, in the order in which they run and are reported."""

from collections.abc import Callable
from typing import Final, NamedTuple

from benchmarks.arena import Row
from benchmarks.stage import Stage
from benchmarks.workloads import (
    embed,
    fairness,
    growth,
    llm,
    noop,
    reading,
    scaling,
    sharing,
    submit,
)


class Workload(NamedTuple):
    """A workload that runs, and tables of its rows, by the names of their places in the page."""

    run: Callable[[Stage], list[Row]]
    report: Callable[[list[Row]], dict[str, str]]


WORKLOADS: Final = {
    "noop": Workload(noop.run, noop.report),
    "llm": Workload(llm.run, llm.report),
    "embed": Workload(embed.run, embed.report),
    "submit": Workload(submit.run, submit.report),
    "fairness": Workload(fairness.run, fairness.report),
    "sharing": Workload(sharing.run, sharing.report),
    "growth": Workload(growth.run, growth.report),
    "reading": Workload(reading.run, reading.report),
    "scaling": Workload(scaling.run, scaling.report),
}
