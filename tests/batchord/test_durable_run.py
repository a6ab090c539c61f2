"""`batchord run` after an interruption: the same command goes on, and pays for nothing twice."""

import csv
import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchord.io.input_file import InputFile
from tests.support.cli_harness import Answer, Running, Shell
from tests.support.openai_server import OpenAIServer
from tests.support.waiting import wait_until

TICKETS, IN_FLIGHT = 300, 8

_TRIAGE = """
from batchord import Chat, Prompt, register

register("triage", Prompt("Urgency? {subject}") | Chat("test-model"))
"""

RUN = (
    *("run", "triage", "--chains", "triage", "--processes", "1"),
    *("--concurrency", IN_FLIGHT, "-i", "tickets.csv", "-o", "answers.csv", "--id", "id"),
)


@pytest.fixture
def shell(tmp_path: Path, provider: OpenAIServer) -> Iterator[Shell]:
    """Where no Redis is, and the provider answers."""
    shell = Shell(
        tmp_path / "shell", OPENAI_BASE_URL=provider.base_url, OPENAI_API_KEY="sk-test-0123456789"
    )
    shell.module("triage", _TRIAGE)
    yield shell
    shell.close()


def write_tickets(shell: Shell, count: int, *, empty: int | None = None) -> None:
    rows = [[f"{i:03}", "" if i == empty else f"ticket {i}"] for i in range(count)]
    with (shell.folder / "tickets.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "subject"], *rows])


def answers(shell: Shell) -> list[dict[str, str]]:
    with (shell.folder / "answers.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def listed(shell: Shell) -> list[dict[str, Any]]:
    said = shell.run("list", "--json")
    assert said.code == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


def interrupted(shell: Shell, running: Running) -> None:
    """Ctrl-C."""
    running.send(signal.SIGINT)
    assert running.wait(60) == 130, running.err
    assert "Run the same command again to go on" in running.err


def killed(shell: Shell, running: Running) -> None:
    """kill -9 of every process of it at once, as a machine that loses its power."""
    for pid in shell.processes():
        os.kill(pid, signal.SIGKILL)
    assert running.wait(60) == -signal.SIGKILL


@pytest.mark.timeout(240)
@pytest.mark.parametrize("end", [interrupted, killed])
def test_the_same_command_goes_on_and_pays_for_nothing_twice(
    shell: Shell, provider: OpenAIServer, end: Callable[[Shell, Running], None]
) -> None:
    write_tickets(shell, TICKETS)
    shell.home.mkdir(mode=0o755)
    running = shell.start(*RUN)
    wait_until(
        lambda: len(provider.requests) >= 60 or running.ended,
        what="a part of it is answered",
        timeout=60,
    )
    provider.delay = 0.2  # so that the rest is not there before the signal
    end(shell, running)
    shell.check_nothing_is_left(timeout=30)
    before = len(provider.requests)
    assert before < TICKETS
    assert stat.S_IMODE(shell.home.stat().st_mode) == 0o700
    [run] = listed(shell)
    assert (run["object"], run["chain"], run["output"]) == ("run", "triage", "answers.csv")
    assert (run["total"], run["status"]) == (TICKETS, None)
    provider.delay = 0.0

    answer = shell.run(*RUN)

    assert answer.code == 0, answer.err
    assert "Going on with the run of" in answer.err
    assert f"of {TICKETS} items had ended" in answer.err
    rows = answers(shell)
    assert [row["id"] for row in rows] == [f"{i:03}" for i in range(TICKETS)]
    assert {row["status"] for row in rows} == {"succeeded"}
    asked = [request.text for request in provider.requests]
    assert len(set(asked)) == TICKETS
    assert len(asked) <= TICKETS + IN_FLIGHT, "and those that were in flight"
    assert not (shell.home / "runs").exists(), "nothing of it is kept"
    shell.check_nothing_is_left(timeout=10)


@pytest.mark.timeout(240)
def test_failed_items_run_again_on_demand_and_fresh_begins_anew(
    shell: Shell, provider: OpenAIServer
) -> None:
    write_tickets(shell, 3, empty=1)
    provider.fail_when("ticket 2", status=422)

    first = shell.run(*RUN)

    assert first.code == 3, first.err
    assert "with --retry-failed runs the failed items again" in first.err
    rows = answers(shell)
    assert [row["error_code"] for row in rows] == ["", "prompt_field_missing", "unprocessable"]
    assert rows[1]["error"].startswith("line 3: the prompt's input has no value in subject")
    assert "line 3: the prompt's input" in first.out
    assert len(provider.requests) == 2

    # The same command runs nothing, and says so.
    (shell.folder / "answers.csv").unlink()
    again = shell.run(*RUN)
    assert (again.code, len(provider.requests), answers(shell)) == (3, 2, rows), again.err
    assert "has ended already (1 of 3 items succeeded), and nothing is run" in again.err

    provider.reset()
    retried = shell.run(*RUN, "--retry-failed")
    assert retried.code == 3, retried.err
    assert "2 failed items run again" in retried.err
    assert [row["status"] for row in answers(shell)] == ["succeeded", "failed", "succeeded"]
    assert len(provider.requests) == 1

    write_tickets(shell, 3)  # other content: another run
    refused = shell.run(*RUN, "--retry-failed")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "there is no earlier run of this input and chain" in refused.err
    write_tickets(shell, 3, empty=1)
    fresh = shell.run(*RUN, "--fresh")
    assert fresh.code == 3, fresh.err
    assert len(provider.requests) == 3

    [run] = listed(shell)
    assert (run["total"], run["done"], run["status"]) == (3, 3, "completed")
    said: Answer = shell.run("list")
    assert run["id"] in said.out
    assert shell.run("purge", run["id"]).code == 0
    assert not (shell.home / "runs" / run["id"]).exists()
    assert shell.run("list").code == 2, "there is neither a run nor a Redis"


@pytest.mark.timeout(240)
def test_only_new_rows_run_and_the_others_keep_their_answers(
    shell: Shell, provider: OpenAIServer
) -> None:
    run, name = RUN, "answers.csv"
    write_tickets(shell, 4)
    provider.fail_when("ticket 2", status=422)
    assert shell.run(*run).code == 3
    provider.reset()
    before = _values(shell, name)
    write_tickets(shell, 6)  # two more; one of them has failed, and one is another one now
    path = shell.folder / "tickets.csv"
    path.write_text(path.read_text().replace("ticket 1", "another ticket"))

    answer = shell.run(*run, "--only-new")

    assert answer.code == 0, answer.err
    assert f"2 rows keep the answers in {name}, 4 rows run" in answer.err
    asked = sorted(request.text for request in provider.requests)
    subjects = ["another ticket", "ticket 2", "ticket 4", "ticket 5"]
    assert asked == [f"Urgency? {subject}" for subject in subjects]
    after = _values(shell, name)
    assert [row["id"] for row in after] == [f"{i:03}" for i in range(6)]
    assert {row["status"] for row in after} == {"succeeded"}
    assert (after[0], after[3]) == (before[0], before[3])
    assert after[1]["subject"] == "another ticket"

    # A row that fails again runs with the same command, and no run is kept for it.
    kept = listed(shell)
    path.write_text(path.read_text() + "006,ticket 6\n")
    provider.fail_when("ticket 6", status=422)
    failed = shell.run(*run, "--only-new")
    assert failed.code == 3, failed.err
    assert "The same command runs the failed items again" in failed.err
    assert listed(shell) == kept
    provider.reset()
    assert shell.run(*run, "--only-new").code == 0
    assert [each.text for each in provider.requests] == ["Urgency? ticket 6"]
    after = _values(shell, name)

    # With nothing new, nothing is started.
    provider.reset()
    again = shell.run(*run, "--only-new")
    assert (again.code, provider.requests) == (0, []), again.err
    assert f"7 rows keep the answers in {name}, 0 rows run" in again.err
    assert _values(shell, name) == after


def _values(shell: Shell, name: str) -> list[dict[str, Any]]:
    return [value for _, value in InputFile(str(shell.folder / name))]


#: Options of a run, and what the one line says.
REFUSED = {
    "two at once": (["-o", "a.csv", "--only-new", "--fresh"], "give one of --retry-failed"),
    "lines": (["-o", "a.jsonl", "--only-new"], "--only-new is for tables"),
    "a URL without its package": (["-o", "s3://bucket/a.csv"], "s3fs"),
    "a URL to read": (["-o", "http://127.0.0.1:9/a.csv"], "cannot be written to"),
    "its inputs, by a URL": (["-o", "file://{folder}/tickets.csv"], "is the file of the inputs"),
    "a table of others": (["-o", "there.csv", "--only-new"], "does not know which chain has made"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_on_is_refused_before_anything_is_started(shell: Shell, name: str) -> None:
    write_tickets(shell, 1)
    (shell.folder / "there.csv").write_text("id\n1\n")
    options, said = REFUSED[name]
    given = [each.format(folder=shell.folder) for each in options]

    answer = shell.run("run", "triage", "--chains", "triage", "-i", "tickets.csv", *given)

    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert said in answer.err
    assert not shell.home.exists()
