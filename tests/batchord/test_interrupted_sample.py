"""Ctrl-C at any point of `run --sample`, and the same command again: each row is paid for once."""

import csv
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cli_harness import Shell
from tests.support.harness import provider_env
from tests.support.openai_server import OpenAIServer
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

ROWS, IN_FLIGHT, SAMPLE = 30, 2, 6

RUN = (
    *("run", "--prompt", "Urgency? {subject}", "-i", "tickets.csv", "-o", "answers.csv"),
    *("--processes", "1", "--concurrency", str(IN_FLIGHT)),
)
SAMPLED = (*RUN, "--sample", str(SAMPLE))


@pytest.fixture
def shell(tmp_path: Path, provider: OpenAIServer) -> Iterator[Shell]:
    shell = Shell(tmp_path / "shell", **provider_env(provider))
    lines = ["subject", *(f"ticket {i}" for i in range(ROWS))]
    (shell.folder / "tickets.csv").write_text("\n".join(lines) + "\n")
    yield shell
    shell.close()


def _after_calls(shell: Shell, provider: OpenAIServer, calls: int) -> None:
    running = shell.start(*SAMPLED, "--yes")
    provider.delay = lambda text: 0.0 if len(provider.requests) < calls else 0.5
    wait_until(lambda: len(provider.requests) >= calls or running.ended, what="calls", timeout=60)
    running.send(signal.SIGINT)
    assert running.wait(60) == 130, running.err
    assert "Run the same command again to go on" in running.err


def during_the_sample(shell: Shell, provider: OpenAIServer) -> None:
    _after_calls(shell, provider, SAMPLE - 2)
    assert len(provider.requests) <= SAMPLE


def during_the_run(shell: Shell, provider: OpenAIServer) -> None:
    _after_calls(shell, provider, SAMPLE + 8)


def at_the_question(shell: Shell, provider: OpenAIServer) -> None:
    with Terminal(shell, *SAMPLED, columns=120) as terminal:
        terminal.wait_for(f"Run all {ROWS} rows?")
        terminal.press_ctrl_c()
        assert terminal.wait() == 130, terminal.text
        assert "Run the same command again to go on" in terminal.text
    assert len(provider.requests) == SAMPLE


def after_the_answer_no(shell: Shell, provider: OpenAIServer) -> None:
    with Terminal(shell, *SAMPLED, columns=120) as terminal:
        terminal.wait_for(f"Run all {ROWS} rows?")
        terminal.type("n\n")
        assert terminal.wait() == 5, terminal.text
    assert "sampled" in shell.run("list").out


def while_results_are_written(shell: Shell, provider: OpenAIServer) -> None:
    running = shell.start(*SAMPLED, "--yes")
    # Nobody reads from this pipe, so that the run stands still where it opens the file.
    os.mkfifo(shell.folder / f".answers.csv.{running.pid}.part")
    running.wait_for(f"{ROWS}/{ROWS} done", timeout=90)
    wait_until(lambda: _is_opening(running.pid), what="it opens the file", timeout=60)
    running.send(signal.SIGINT)
    assert running.wait(60) == 130, running.err
    assert "Run the same command again to have the results written" in running.err
    assert not (shell.folder / "answers.csv").exists()


def _is_opening(pid: int) -> bool:
    """Whether the main thread of a process waits in the kernel to open a pipe."""
    waits = Path(f"/proc/{pid}/wchan").read_text()
    if waits == "0":  # this kernel does not say
        time.sleep(2)
    return waits in ("0", "wait_for_partner", "fifo_open")


@dataclass(frozen=True)
class Case:
    """Where a run is interrupted, what is given next, and the calls beyond one for each row."""

    interrupt: Callable[[Shell, OpenAIServer], None]
    again: tuple[str, ...]
    more: int = 0


CASES = {
    "in the sample, then without one": Case(during_the_sample, RUN, IN_FLIGHT),
    "in the sample, then with another": Case(
        during_the_sample, (*RUN, "--sample", "9", "--yes"), IN_FLIGHT
    ),
    "at the question, then with it": Case(at_the_question, (*SAMPLED, "--yes")),
    "refused, then without": Case(after_the_answer_no, RUN),
    "in the run, then with it": Case(during_the_run, (*SAMPLED, "--yes"), IN_FLIGHT),
    "while results are written": Case(while_results_are_written, (*SAMPLED, "--yes")),
}


@pytest.mark.parametrize("name", CASES)
def test_each_row_is_paid_for_once(shell: Shell, provider: OpenAIServer, name: str) -> None:
    case = CASES[name]
    provider.delay = 0
    case.interrupt(shell, provider)
    shell.check_nothing_is_left(timeout=30)
    provider.delay = 0

    answer = shell.run(*case.again)

    assert answer.code == 0, answer.err
    with (shell.folder / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["subject"] for row in rows] == [f"ticket {i}" for i in range(ROWS)]
    assert {row["status"] for row in rows} == {"succeeded"}
    asked = [request.text for request in provider.requests]
    assert len(set(asked)) == ROWS
    assert len(asked) <= ROWS + case.more, "and those that were in flight"
    assert not (shell.home / "runs").exists(), "nothing of it is kept"
