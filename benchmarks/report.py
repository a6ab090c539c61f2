"""The page: tables are put between markers, what stands around them is the author's."""

import re
from pathlib import Path
from typing import Any, Final

from benchmarks.suite import WORKLOADS

#: The beginning of a new page: a heading, and the names of the tables below.
HEADINGS: Final = {
    "Machine and versions": ("about",),
    "Items that do nothing": ("noop",),
    "LLM calls": ("llm", "llm-tail", "llm-provider"),
    "Texts to vectors": ("embed",),
    "Submitting": ("submit",),
    "Fairness": ("fairness", "sharing"),
    "Growth": ("growth",),
    "Reading": ("reading-results", "reading-delays"),
    "Scaling": ("scaling",),
}

#: Those of them that `benchmarks.plots` draws.
PICTURES: Final = ("noop", "llm", "growth", "scaling")


def write(page: Path, workloads: dict[str, Any]) -> None:
    """Put every table into its place; a table without a place goes to the end."""
    text = page.read_text() if page.exists() else _empty()
    tables = {"about": _about(workloads)}
    for name, workload in workloads.items():
        tables |= WORKLOADS[name].report(workload["rows"])
    for name, table in tables.items():
        text = _placed(text, name, table)
    page.write_text(text)


def _placed(text: str, name: str, table: str) -> str:
    begin, end = f"<!-- bench:{name} -->", "<!-- /bench -->"
    block = f"{begin}\n\n{table}\n\n{end}"
    if begin not in text:
        return f"{text.rstrip()}\n\n{block}\n"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: block, text, count=1)


def _empty() -> str:
    parts = ["# Performance"]
    for heading, names in HEADINGS.items():
        parts.append(f"## {heading}")
        if names[0] in PICTURES:
            parts.append(f"![{heading}](bench-{names[0]}.png)")
        parts += [f"<!-- bench:{name} -->\n\n<!-- /bench -->" for name in names]
    return "\n\n".join(parts) + "\n"


def _about(workloads: dict[str, Any]) -> str:
    """One line a machine and set of versions: they are the same unless workloads ran apart."""
    kinds: dict[str, list[str]] = {}
    for name, workload in workloads.items():
        kinds.setdefault(_facts(workload["about"]), []).append(name)
    return "\n".join(f"- {', '.join(names)}: {facts}" for facts, names in kinds.items())


def _facts(about: dict[str, Any]) -> str:
    ours, peers = (
        ", ".join(f"{name} {version}" for name, version in about[which].items())
        for which in ("versions", "peers_versions")
    )
    return (
        f"{about['date'][:10]}, {about['cpus']} CPUs ({about['cpu']}), {about['system']}, "
        f"Python {about['python']}, {about['server']}; {ours}; "
        f"in the peers' own environment: {peers}; `{about['command']}`"
    )
