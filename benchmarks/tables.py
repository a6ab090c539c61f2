"""Rows in and out of files: CSV, Parquet and JSON lines, each in a process of its own.

`python -m benchmarks.tables --rows 1000000` reads a file of rows as `submit` does, and writes
results as `run` does. The ledger is left out, which is the same for all formats; with `--ledger`
rows go from file to file through it. Rows a second are of CPU time, so that other processes of the
machine do not count.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from batchord.chains import Usage
from batchord.io.input_file import InputFile
from batchord.io.json_lines import InputLines
from batchord.ledger.models import Item, ItemStatus
from batchord.ledger.settings import Settings
from batchord.producer.export import write_lines
from batchord.producer.inputs import blocks
from batchord.producer.tables.layout import Pair
from batchord.producer.tables.table_file import write_table
from benchmarks.tables_ledger import measure

_TEXT: Final = "The site is down since this morning, and nobody answers the phone. "
_OUTPUT: Final = ("urgency", "summary", "score")


def _row(index: int) -> dict[str, str]:
    return {"id": f"{index:09}", "subject": f"ticket {index}", "body": _TEXT * (1 + index % 4)}


def _item(index: int) -> Item:
    output = dict(zip(_OUTPUT, ("high", _TEXT, index / 7), strict=True))
    usage = Usage(requests=1, input_tokens=90, output_tokens=20, cost_nanos=120_000)
    return Item(index=index, status=ItemStatus.SUCCEEDED, output=output, usage=usage, attempts=1)


def _pairs(rows: int) -> Iterator[Pair]:
    return ((_row(index), _item(index)) for index in range(rows))


def _read(path: Path) -> None:
    settings = Settings(max_items=100_000_000)
    for _ in blocks(InputLines(InputFile(str(path))), None, json.loads, settings):
        pass


def _write_input(path: Path, rows: int) -> None:
    with path.open("w") as file:
        if path.suffix == ".csv":
            file.write("id,subject,body\n")
        for index in range(rows):
            row = _row(index)
            line = json.dumps(row)
            if path.suffix == ".csv":
                line = ",".join(f'"{cell}"' for cell in row.values())
            file.write(f"{line}\n")


#: What is measured, given the file and the number of rows.
MEASURES: Final[dict[str, tuple[str, Callable[[Path, int], Any]]]] = {
    "read CSV": ("in.csv", lambda path, rows: _read(path)),
    "read JSON lines": ("in.jsonl", lambda path, rows: _read(path)),
    "write Parquet": (
        "out.parquet",
        lambda path, rows: write_table(path, lambda: _pairs(rows), "parquet", None),
    ),
    "write CSV": (
        "out.csv",
        lambda path, rows: write_table(path, lambda: _pairs(rows), "csv", None),
    ),
    "write JSON lines": (
        "out.jsonl",
        lambda path, rows: write_lines(path, (item for _, item in _pairs(rows))),
    ),
}


def _measure(name: str, folder: Path, rows: int) -> None:
    """Carry out one measure in this process, and print its seconds and the peak of memory in KB."""
    file, measure = MEASURES[name]
    if file.startswith("in."):
        _write_input(folder / file, rows)
    begin = time.process_time()
    measure(folder / file, rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([time.process_time() - begin, peak]))


def _measured(name: str, rows: int) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.tables", "--one", name, folder]
        said = subprocess.run(
            [*command, "--rows", str(rows)], check=True, capture_output=True, text=True
        ).stdout
    seconds, peak = json.loads(said)
    return seconds, peak


def main() -> None:
    """Measure each format, or one (`--one`)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--one", nargs=2, metavar=("MEASURE", "FOLDER"))
    parser.add_argument("--ledger", action="store_true", help="through Valkey and a worker")
    given = parser.parse_args()
    if given.ledger:
        measure(_write_input, given.rows)
        return
    if given.one:
        _measure(given.one[0], Path(given.one[1]), given.rows)
        return
    print("| measure | rows/s of CPU | peak, MB | peak of a hundredth, MB |\n|---|---|---|---|")
    for name in MEASURES:
        _, few = _measured(name, given.rows // 100)
        seconds, peak = _measured(name, given.rows)
        print(f"| {name} | {given.rows / seconds:,.0f} | {peak / 1024:,.0f} | {few / 1024:,.0f} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
