"""Tickets in a CSV become typed columns in one command; Ctrl-C in the middle costs no answer.

    python -m examples.tickets --local-model       # or with OPENAI_API_KEY, OPENAI_MODEL

It runs `batchord run`, presses Ctrl-C once a third of the rows are answered, gives the same command
again, and compares the calls that went to the model with the rows: one each, and those in flight.
"""

import argparse
import csv
import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from batchord.local.local_model import LocalModel
from examples.call_counter import CallCounter

#: Calls that are under way at a time.
IN_FLIGHT = 8
#: Rows that are shown at the end.
SHOWN = 5

_WHO = ("A customer", "The sales team", "Our largest account", "A colleague", "The night shift")
_WHAT = (
    ("Site down", "cannot open the site since this morning, and orders are lost.\nNobody answers."),
    ("Rename me", "would like another display name, whenever there is time."),
    ("Invoice", 'asks what "net 30" on the invoice means.'),
    ("Data loss", "sees yesterday's records gone, and the backup is empty as well!"),
    ("Thanks", "says that all works again, and sends greetings."),
    ("Slow report", "waits a minute for the monthly report; last month it was five seconds."),
)

COMMAND = (
    *("run", "--prompt", "Is this support ticket urgent? {subject}: {body}"),
    *("--schema", "urgency:low|high", "-i", "tickets.csv", "-o", "answers.csv", "--id", "id"),
    *("--processes", "1", "--concurrency", str(IN_FLIGHT), "--preview", "0"),
)


def tickets(count: int) -> Iterator[tuple[str, str, str]]:
    """Yield the id, the subject and the body of each ticket; no two are the same."""
    for number in range(count):
        subject, told = _WHAT[number % len(_WHAT)]
        who = _WHO[number // len(_WHAT) % len(_WHO)]
        yield f"{number:04}", subject, f"{who} {told} (Ticket {number})"


def write_tickets(path: Path, count: int) -> None:
    """Write a CSV file of tickets, with line breaks and quotes in their cells."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "subject", "body"), *tickets(count)])


def run_twice(folder: Path, calls: CallCounter, count: int) -> int:
    """Interrupt the command once a third is answered, give it again; return its exit code."""
    # Beside this Python: the program of the same environment.
    program = str(Path(sys.executable).with_name("batchord"))
    environment = {**os.environ, "OPENAI_BASE_URL": calls.base_url}
    print(f"$ batchord {shlex.join(COMMAND)}", flush=True)
    with subprocess.Popen([program, *COMMAND], cwd=folder, env=environment) as first:
        while first.poll() is None and calls.answered < count // 3:
            calls.wait(0.05)
        first.send_signal(signal.SIGINT)
    print(f"\n{calls.asked} calls so far. The same command again:\n", flush=True)
    return subprocess.run([program, *COMMAND], cwd=folder, env=environment, check=False).returncode


def report(answers: Path, calls: int, count: int) -> bool:
    """Show what came out; return whether each row was answered, and none was paid for twice."""
    with answers.open(newline="") as file:
        rows = list(csv.DictReader(file))
    print(f"\nThe first {SHOWN} rows of {answers}:")
    for row in rows[:SHOWN]:
        print(f"  {row['id']}  {row['subject']:<12} urgency={row['urgency']:<5} {row['status']}")
    print("Urgency:", dict(Counter(row["urgency"] for row in rows)))
    again = calls - count
    print(
        f"{count} rows, {calls} calls to the model: {again} were in flight at Ctrl-C and made again"
    )
    succeeded = all(row["status"] == "succeeded" for row in rows)
    return succeeded and len(rows) == count and 0 <= again <= IN_FLIGHT


def main() -> None:
    """Write the tickets, interrupt the run over them, go on, and say what was paid for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="tickets")
    parser.add_argument("--folder", type=Path, default=Path(".demo/tickets"))
    parser.add_argument("--local-model", action="store_true", help="a small model on this machine")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    write_tickets(given.folder / "tickets.csv", given.count)
    (given.folder / "answers.csv").unlink(missing_ok=True)
    os.environ["BATCHORD_HOME"] = str((given.folder / "home").absolute())
    with ExitStack() as stack:
        if given.local_model:
            os.environ |= stack.enter_context(LocalModel()).environment()
        calls = stack.enter_context(CallCounter(os.environ.get("OPENAI_BASE_URL")))
        code = run_twice(given.folder, calls, given.count)
    if code or not report(given.folder / "answers.csv", calls.asked, given.count):
        sys.exit(f"examples.tickets: expected an answer a row, each paid for once (exit {code})")


if __name__ == "__main__":
    main()
