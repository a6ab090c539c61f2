"""`batchord run -o URL`: results are uploaded at the end, and what fails there loses nothing."""

import csv
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli_harness import Shell
from tests.support.harness import provider_env
from tests.support.openai_server import OpenAIServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

ROWS = 40

RUN = (
    *("run", "--prompt", "Urgency? {subject}", "-i", "tickets.csv"),
    *("--processes", "1", "--concurrency"),
)


@pytest.fixture
def shell(tmp_path: Path, provider: OpenAIServer) -> Iterator[Shell]:
    shell = Shell(tmp_path / "shell", **provider_env(provider))
    _write(shell, [f"ticket {i}" for i in range(ROWS)])
    yield shell
    shell.close()


def _write(shell: Shell, subjects: list[str]) -> None:
    with (shell.folder / "tickets.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["subject"], *([each] for each in subjects)])


def _url(bucket: Path) -> str:
    """A URL of fsspec's that is no path, in a folder that stands for a bucket."""
    return f"dir://answers.csv::file://{bucket}"


def test_a_failed_upload_loses_nothing_and_the_same_command_makes_it_again(
    shell: Shell, provider: OpenAIServer
) -> None:
    bucket = shell.folder / "bucket"
    run = (*RUN, "8", "-o", _url(bucket))

    # Nobody has made the bucket.
    failed = shell.run(*run)
    assert (failed.code, failed.err.count("Traceback")) == (2, 0), failed.err
    assert "Nothing is lost: the same command writes them, and runs nothing again" in failed.err
    assert len(provider.requests) == ROWS
    shell.check_nothing_is_left(timeout=10)
    [kept] = [json.loads(line) for line in shell.run("list", "--json").out.splitlines()]
    assert (kept["object"], kept["output"]) == ("run", _url(bucket))

    bucket.mkdir()
    again = shell.run(*run)
    assert again.code == 0, again.err
    assert f"({ROWS} of {ROWS} items succeeded), and nothing is run" in again.err
    assert len(provider.requests) == ROWS
    assert [row["subject"] for row in _rows(bucket)] == [f"ticket {i}" for i in range(ROWS)]
    assert [each.name for each in bucket.iterdir()] == ["answers.csv"]
    assert not (shell.home / "runs").exists()

    # Rows with an answer there keep it.
    before = _rows(bucket)
    _write(shell, [*(f"ticket {i}" for i in range(ROWS)), "another"])
    more = shell.run(*run, "--only-new")
    assert more.code == 0, more.err
    assert len(provider.requests) == ROWS + 1
    assert _rows(bucket)[:ROWS] == before
    assert _rows(bucket)[ROWS]["subject"] == "another"


def test_an_interrupted_run_uploads_nothing_and_goes_on(
    shell: Shell, provider: OpenAIServer
) -> None:
    bucket = shell.folder / "bucket"
    bucket.mkdir()
    (bucket / "answers.csv").write_text("before\n")
    run = (*RUN, "2", "-o", _url(bucket))
    running = shell.start(*run)
    wait_until(lambda: len(provider.requests) >= 8 or running.ended, what="a part", timeout=60)
    provider.delay = 0.2
    running.send(signal.SIGINT)
    assert running.wait(60) == 130, running.err
    assert f"{_url(bucket)} is as it was" in running.err
    assert (bucket / "answers.csv").read_text() == "before\n"
    provider.delay = 0

    again = shell.run(*run)

    assert again.code == 0, again.err
    assert "Going on with the run of" in again.err
    assert {row["status"] for row in _rows(bucket)} == {"succeeded"}
    assert len(provider.requests) <= ROWS + 2, "and those that were in flight"


def _rows(bucket: Path) -> list[dict[str, str]]:
    with (bucket / "answers.csv").open(newline="") as file:
        return list(csv.DictReader(file))
