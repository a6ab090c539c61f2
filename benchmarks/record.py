"""The raw data: every run as it was measured, with what it was measured on."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks.arena import Arena, Row

OURS: Final = (
    *("batchord", "celery", "kombu", "redis", "hiredis", "openai", "aiohttp", "httpx2"),
    *("langchain-core", "langchain-openai"),
)
PEERS: Final = ("dramatiq", "arq", "redis", "hiredis", "openai", "aiohttp", "httpx2")

#: Run by the peers' Python: prints the versions of the packages that it is given.
_ASK: Final = (
    "import importlib.metadata as m, json, sys;"
    "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
)


def about(arena: Arena, *, peers: Path, command: str, scale: float, repeats: int) -> dict[str, Any]:
    """Return what a reader must know to judge the rows, and nothing that names the machine."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "scale": scale,
        "repeats": repeats,
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "server": arena.server_version,
        "versions": _versions(),
        "peers_versions": _peers_versions(peers),
    }


def load(path: Path) -> dict[str, Any]:
    """Return the workloads that were recorded before, by name."""
    if not path.exists():
        return {}
    recorded: dict[str, Any] = json.loads(path.read_text())["workloads"]
    return recorded


def save(path: Path, workloads: dict[str, Any]) -> None:
    """Write the workloads, one row a line, so that a change of one is a change of a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, workload in workloads.items():
        rows = ",\n".join(f"        {json.dumps(_rounded(row))}" for row in workload["rows"])
        facts = json.dumps(workload["about"], indent=2).replace("\n", "\n      ")
        parts.append(
            f'    "{name}": {{\n      "about": {facts},\n      "rows": [\n{rows}\n      ]\n    }}'
        )
    path.write_text('{\n  "workloads": {\n' + ",\n".join(parts) + "\n  }\n}\n")


def _rounded(row: Row) -> Row:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}


def _versions() -> dict[str, str]:
    found = {}
    for name in OURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "?"
    return found


def _peers_versions(python: Path) -> dict[str, str]:
    said = subprocess.run([python, "-c", _ASK, *PEERS], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(said.stdout)
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or sys.platform
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
