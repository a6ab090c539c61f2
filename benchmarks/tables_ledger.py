"""Rows from a file to a file through a ledger: a real Valkey, a worker, a chain that does little.

`python -m benchmarks.tables --ledger --rows 200000`. One `batchord run` each, from CSV to Parquet
and from JSON lines to JSON lines; its process is the client, which reads the input and writes the
results. Seconds are those of the clock: other processes of the machine count.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis

from batchord.local.server import EmbeddedServer

#: Writes the input: a path and the number of rows.
Write = Callable[[Path, int], None]

#: What is read and written.
FILES: Final = {
    "CSV to Parquet": ("in.csv", "out.parquet"),
    "JSON lines to JSON lines": ("in.jsonl", "out.jsonl"),
}

_CHAIN: Final = """
from batchord import Lambda, register

async def label(row):
    return {"urgency": "high", "length": len(row["body"])}

register("label", Lambda(label))
"""


class Through(NamedTuple):
    """The measures of one run: seconds, bytes."""

    submit: float
    run: float
    write: float
    client_peak: int
    redis_peak: int
    redis_end: int


def _through(write: Write, source: str, target: str, rows: int) -> Through:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "label.py").write_text(_CHAIN)
        write(folder / source, rows)
        with EmbeddedServer(folder / "data") as server:
            environment = {
                **os.environ,
                "BATCHORD_REDIS_URL": server.url,
                "BATCHORD_HOME": str(folder / "home"),
            }
            record, ended = _run(folder, environment, source, target)
            info = redis.Redis.from_url(server.url).info("memory")
    begun, sealed, done = (
        datetime.fromisoformat(record[each]).timestamp()
        for each in ("created_at", "in_progress_at", "ended_at")
    )
    return Through(
        submit=sealed - begun,
        run=done - sealed,
        write=ended - done,
        client_peak=record["peak"],
        redis_peak=info["used_memory_peak"],
        redis_end=info["used_memory"],
    )


def _run(
    folder: Path, environment: dict[str, str], source: str, target: str
) -> tuple[dict[str, Any], float]:
    """Run it; return the batch's record, with the client's peak of memory, and when it ended."""
    command = [str(Path(sys.executable).with_name("batchord")), "run", "label", "--json"]
    command += ["--chains", "./label.py", "-i", source, "-o", target, "--processes", "1"]
    with subprocess.Popen(
        [*command, "--preview", "0"], cwd=folder, env=environment, stdout=subprocess.PIPE
    ) as process:
        peak = 0
        while process.poll() is None:
            peak = _peak(process.pid) or peak
            time.sleep(0.05)
        ended = time.time()
        assert process.stdout is not None
        said = process.stdout.read()
    if process.returncode:
        sys.exit(f"the run ended with exit code {process.returncode}")
    return {**json.loads(said), "peak": peak}, ended


def _peak(pid: int) -> int | None:
    """Return the most memory that a process has held, in bytes; None if it has ended."""
    try:
        status = (Path("/proc") / str(pid) / "status").read_text()
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else None


def measure(write: Write, rows: int) -> None:
    """Print what each pair of formats takes, and the client's peak of a tenth of the rows."""
    names = [
        *("from, to", "rows/s", "submit, s", "run, s", "write, s"),
        *("client peak, MB", "peak of a tenth, MB", "Redis peak, MB", "Redis bytes a row"),
    ]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for name, (source, target) in FILES.items():
        few = _through(write, source, target, rows // 10)
        found = _through(write, source, target, rows)
        seconds = found.submit + found.run + found.write
        cells = (
            name,
            f"{rows / seconds:,.0f}",
            *(f"{each:,.0f}" for each in (found.submit, found.run, found.write)),
            *(f"{each / 2**20:,.0f}" for each in (found.client_peak, few.client_peak)),
            f"{found.redis_peak / 2**20:,.0f}",
            f"{found.redis_end / rows:,.0f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)
