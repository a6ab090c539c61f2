"""`batchord run`: one command, ordered results, and nothing left behind."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchord.ledger.storage.keys import PAGE_SIZE
from tests.support.cli_harness import CHAINS, Running, Shell, results
from tests.support.harness import Deployment, lines_of
from tests.support.waiting import wait_until

_STEPS = """
import asyncio
from batchord.chains import register

async def wait_for_it(number):
    with open("seen", "a") as seen:
        print(number, file=seen)
    await asyncio.sleep(0 if number < 4 else 3600)
    return number

register("wait-for-it", wait_for_it)
"""

SMALL = ("--chains", CHAINS, "--processes", "1", "--concurrency", "4")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "shell")
    yield shell
    shell.close()


def test_it_writes_ordered_results_with_their_ids_and_exits_3_if_items_failed(shell: Shell) -> None:
    inputs: list[dict[str, Any]] = [
        # Backwards in time, so that order is not an accident.
        {"seconds": 0.02 * (20 - i), "value": i, "fail": "later" if i in (3, 8) else None}
        for i in range(20)
    ]
    inputs[5]["value"] = "\x1b[31mred \x07bell[/red]"
    ids = [f"[/b] customer {i} :smile:" for i in range(20)]
    shell.write(
        "in.jsonl", [{"input": i, "custom_id": c} for i, c in zip(inputs, ids, strict=True)]
    )

    answer = shell.run("run", "may-fail", *SMALL, "-i", "in.jsonl", "-o", "out.jsonl")

    assert answer.code == 3, answer.err
    found = results(shell.folder / "out.jsonl")
    assert [each["index"] for each in found] == list(range(20))
    assert [each["custom_id"] for each in found] == ids
    assert [each["output"] for each in found] == [
        None if i in (3, 8) else inputs[i]["value"] for i in range(20)
    ]
    assert found[3]["status"] == "failed"
    assert found[3]["error"] == {
        "code": "rate_limited",
        "message": "slow down",
        "step": "may_fail",
        "retryable": True,
        "http_status": 429,
        "raw": None,
        "attempts": 1,
    }
    assert "completed · 20 items: 18 succeeded, 2 failed" in answer.out
    assert "rate_limited" in answer.out
    assert "[/b] customer 3 :smile:" in answer.out, "names are shown as they are"
    assert "may-fail: 20/20 done, 2 failed" in answer.err
    assert "\x1b" not in answer.out + answer.err, "nothing colours a pipe"
    assert "\x07" not in answer.out, "no model rings our bell"
    shell.check_nothing_is_left(timeout=0)
    assert not list(shell.tmp.iterdir())
    assert len(list((shell.home / "runs").iterdir())) == 1, "for --retry-failed"


def test_killed_in_the_middle_nothing_of_it_lives_on(shell: Shell) -> None:
    running = _half_way(shell)
    assert shell.processes("batchord.local.server")
    assert shell.processes("valkey")
    assert shell.processes("-m batchord.worker")

    running.send(signal.SIGKILL)

    assert running.wait() == -signal.SIGKILL
    shell.check_nothing_is_left(timeout=8)
    assert not (shell.folder / "out.jsonl").exists()
    # The inputs and what was answered wait for the same command (test_durable_run.py).
    assert not list(shell.tmp.rglob("*.aof"))
    assert list(shell.home.rglob("*.aof"))


def test_interrupted_it_writes_what_had_ended_and_exits_130(shell: Shell) -> None:
    running = _half_way(shell)

    running.send(signal.SIGINT)

    assert running.wait(timeout=10) == 130, running.err
    found = results(shell.folder / "out.jsonl")
    assert [(each["index"], each["output"]) for each in found] == [(i, i) for i in range(4)]
    assert "the 4 items that had ended are in out.jsonl" in running.err
    shell.check_nothing_is_left(timeout=0)
    assert not list(shell.tmp.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_while_it_still_reads_submit_leaves_no_trace(
    deployment: Deployment, number: signal.Signals
) -> None:
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    try:
        running = shell.start("submit", "double", "--chains", CHAINS, "-i", "-")
        running.stdin.write(b"1\n" * (2 * PAGE_SIZE))
        running.stdin.flush()
        wait_until(lambda: deployment.keys_of("batch_"), what="its first inputs are written")

        running.send(number)

        assert running.wait() == 130
        assert running.err == "Interrupted\n"
        assert running.out == ""
        assert deployment.client.list() == []
        assert not deployment.keys_of("batch_")
    finally:
        shell.close()


def test_with_a_redis_it_brings_only_workers_and_json_is_one_record_on_stdout(
    deployment: Deployment,
) -> None:
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    try:
        answer = shell.run(
            *("run", "double", *SMALL, "-i", "-", "-o", "out.jsonl", "--json"),
            stdin="\ufeff1\n\n2\n3\n",
        )

        assert answer.code == 0, answer.err
        assert answer.out.count("\n") == 1
        assert answer.json["status"] == "completed"
        assert answer.json["request_counts"]["succeeded"] == 3
        assert [each["output"] for each in results(shell.folder / "out.jsonl")] == [2, 4, 6]
        assert "double: 3/3 done" in answer.err
        assert "3 succeeded" in answer.err, "the tables are still there, for a person"
        assert deployment.client.retrieve(answer.json["id"]).outputs() == [2, 4, 6]
        shell.check_nothing_is_left(timeout=0)
    finally:
        shell.close()


def _half_way(shell: Shell) -> Running:
    """A run of 12 items, of which four have ended and four wait for what never comes."""
    shell.module("steps", _STEPS)
    shell.write("in.jsonl", range(12))
    running = shell.start(
        *("run", "wait-for-it", "--chains", "steps", "--processes", "1", "--concurrency", "4"),
        *("-i", "in.jsonl", "-o", "out.jsonl"),
    )
    # Only four run at a time: once the next four have started, the first are settled.
    wait_until(
        lambda: len(lines_of(shell.folder / "seen")) == 8 or running.ended,
        what="eight items have started",
        timeout=30,
    )
    assert not running.ended, running.err
    return running
