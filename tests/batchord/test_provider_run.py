"""`batchord run --mode provider` after an interruption: what is at the provider is waited for."""

import csv
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cli_harness import Running, Shell
from tests.support.harness import provider_env
from tests.support.openai_server import OpenAIServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

ROWS = 50

SMALL = ("--mode", "provider", "--processes", "1")
RUN = (*("run", "--prompt", "Urgency? {subject}", "-i", "tickets.csv", "-o", "out.csv"), *SMALL)


@pytest.fixture
def shell(tmp_path: Path, provider: OpenAIServer) -> Iterator[Shell]:
    fast = {"BATCHORD_PROVIDER_POLL": "0.1", "BATCHORD_SWEEP_INTERVAL": "0.1"}
    shell = Shell(tmp_path / "shell", **provider_env(provider), **fast)
    subjects = [f"ticket {i}" for i in range(ROWS)]
    (shell.folder / "tickets.csv").write_text("\n".join(["subject", *subjects]) + "\n")
    yield shell
    shell.close()


def interrupted(shell: Shell, running: Running) -> None:
    """Ctrl-C."""
    running.send(signal.SIGINT)
    assert running.wait(60) == 130, running.err


def killed(shell: Shell, running: Running) -> None:
    """kill -9 of every process of it at once."""
    for pid in shell.processes():
        os.kill(pid, signal.SIGKILL)
    assert running.wait(60) == -signal.SIGKILL


def at_the_provider(provider: OpenAIServer) -> bool:
    """It is in one of the provider's batches, which takes its time."""
    return any(each["status"] == "in_progress" for each in provider.batches.batches.values())


def created(provider: OpenAIServer) -> bool:
    """It has just been made there."""
    return bool(provider.batches.batches)


def uploaded(provider: OpenAIServer) -> bool:
    """Its file is there, and perhaps no batch."""
    return bool(provider.batches.uploads)


Moment = Callable[[OpenAIServer], bool]
End = Callable[[Shell, Running], None]

#: When a run ends, and how.
CASES: dict[str, tuple[Moment, End]] = {
    "Ctrl-C, uploaded": (uploaded, interrupted),
    "Ctrl-C, in progress": (at_the_provider, interrupted),
    "kill -9, created": (created, killed),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_at_the_provider_is_paid_for_once(
    shell: Shell, provider: OpenAIServer, name: str
) -> None:
    moment, end = CASES[name]
    provider.batches.behaviour.held = True
    running = shell.start(*RUN)
    wait_until(lambda: moment(provider) or running.ended, what="it is there", timeout=60)
    end(shell, running)
    shell.check_nothing_is_left(timeout=30)
    [kept] = [json.loads(line) for line in shell.run("list", "--json").out.splitlines()]
    assert (kept["object"], kept["total"], kept["status"]) == ("run", ROWS, None)
    provider.batches.behaviour.held = False

    answer = shell.run(*RUN)

    assert answer.code == 0, answer.err
    assert "Going on with the run of" in answer.err
    assert sorted(provider.batches.executed.values()) == [1] * ROWS
    paths = {request.path.removeprefix("/v1/").split("/")[0] for request in provider.requests}
    assert paths <= {"files", "batches"}, "nothing is called live"
    with (shell.folder / "out.csv").open(newline="") as file:
        rows = [(row["subject"], row["output"]) for row in csv.DictReader(file)]
    assert rows == [(f"ticket {i}", f"echo: Urgency? ticket {i}") for i in range(ROWS)]
    assert not (shell.home / "runs").exists(), "nothing of it is kept"
