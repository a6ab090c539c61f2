"""`batchord watch`, `status` and `list` as a person sees them, in a terminal and in a pipe."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from batchord.chains import Usage
from batchord.ledger.models import BatchRecord, BatchStatus, PauseReason, RequestCounts
from batchord.ledger.storage.batch_stats import FailureGroup, Progress
from batchord.output import render, status_view
from batchord.output.watch import Sight, view
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.cli_harness import Shell
from tests.support.harness import Deployment
from tests.support.terminal import COLOUR, CONTROL, Terminal
from tests.support.valkey import Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(60)

_HELD = """
import asyncio
from pathlib import Path
from batchord.chains import ChainError, OperatorNeeded, register

async def held(what):
    if what == "operator":
        raise OperatorNeeded("no such key", code="authentication_error")
    if what.startswith("fail"):
        raise ChainError("secret \\x1b[2J", code=what[5:])
    while what != "go" and not Path(what).exists():
        await asyncio.sleep(0.02)
    return what

register("held", held)
"""


@pytest.fixture(scope="module")
def working(deploy_for_module: Deploy) -> Deployment:
    """A deployment whose worker has a chain that waits for a file, or fails as it is told."""
    deployment = deploy_for_module(alike_limit=0)
    (deployment.folder / "held.py").write_text(_HELD)
    deployment.start_worker(concurrency=4, env={"BATCHORD_CHAINS": "held"})
    return deployment


@pytest.fixture
def shell(working: Deployment, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "shell", BATCHORD_REDIS_URL=working.url)
    yield shell
    shell.close()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def half_done(working: Deployment, gate: Path) -> Batch:
    """A batch of eight: three have succeeded, three failed, and two wait for the gate."""
    inputs = ["go", "fail one", "go", "fail two", "fail one", "go", str(gate), str(gate)]
    batch = working.client.submit("held", inputs)
    wait_until(
        lambda: batch.record().request_counts.done == 6 and batch.record().running == 2,
        what="all that can end has ended",
    )
    return batch


def test_watch_is_a_live_view_that_ends_with_the_batch_and_its_exit_code(
    shell: Shell, half_done: Batch, gate: Path
) -> None:
    with Terminal(shell, "watch", half_done.id) as terminal:
        terminal.wait_for("held in_progress", " 75% 6/8", "/s · ", " 2 running · ", " elapsed")
        terminal.wait_for("3 failed: one 2, two 1")
        height = len(terminal.lines)
        gate.touch()

        assert terminal.wait() == 3
        assert "100% 8/8" in terminal.text
        assert f"{half_done.id} completed · 8 items: 5 succeeded, 3 failed" in terminal.text
        assert len(terminal.lines) <= height + 2, "drawn in place"
        assert "secret" not in terminal.text
        assert COLOUR.search(terminal.raw)


def test_ctrl_c_stops_the_watching_and_the_batch_goes_on(
    shell: Shell, half_done: Batch, gate: Path
) -> None:
    with Terminal(shell, "watch", half_done.id) as terminal:
        terminal.wait_for("6/8")
        terminal.press_ctrl_c()

        assert terminal.wait() == 130
        assert "Stopped watching; the batch goes on." in terminal.text
        assert f"batchord cancel {half_done.id}" in terminal.text
        assert "Traceback" not in terminal.text
        assert b"\x1b[?25h" in terminal.raw, "the cursor is there again"
    gate.touch()
    assert half_done.wait(20).status is BatchStatus.COMPLETED


def test_no_color_has_none_and_a_narrow_terminal_has_it_all(
    shell: Shell, half_done: Batch, gate: Path
) -> None:
    with Terminal(shell, "watch", half_done.id, columns=40, env={"NO_COLOR": "1"}) as terminal:
        terminal.wait_for("held in_progress", "75% 6/8", "3 failed: one 2, two 1")
        gate.touch()
        assert terminal.wait() == 3
        assert not COLOUR.search(terminal.raw)
        assert "100% 8/8" in terminal.text


def test_a_dumb_terminal_and_a_pipe_get_lines(shell: Shell, half_done: Batch, gate: Path) -> None:
    with Terminal(shell, "watch", half_done.id, env={"TERM": "dumb"}) as terminal:
        terminal.wait_for("held: 6/8 done, 3 failed (one 2, two 1), ")
        gate.touch()
        assert terminal.wait() == 3
        assert "held: 8/8 done" in terminal.text
        assert not COLOUR.search(terminal.raw)
        assert not CONTROL.search(terminal.raw)
    # Continuous integration often asks for colours: they are no reason to move a cursor.
    for command, env in (("watch", {"FORCE_COLOR": "1"}), ("status", {})):
        answer = shell.run(command, half_done.id, env=env)
        said = (answer.out + answer.err).encode()
        assert answer.code == 3
        assert not CONTROL.search(said)
        assert env or b"\x1b" not in said


def test_watch_says_who_paused_the_batch_and_goes_on_when_it_does(
    shell: Shell, working: Deployment, gate: Path
) -> None:
    batch = working.client.submit("held", ["operator"])
    with Terminal(shell, "watch", batch.id) as terminal:
        terminal.wait_for("held paused", "Paused, authentication_error: no such key (item 0)")
        batch.cancel()
        assert terminal.wait() == 4
    batch = working.client.submit("held", [str(gate)] * 5)
    batch.pause()
    with Terminal(shell, "watch", batch.id) as terminal:
        terminal.wait_for("held paused", f"Paused by someone: batchord resume {batch.id} goes on")
        gate.touch()
        batch.resume()
        assert terminal.wait() == 0


def test_watch_bears_a_redis_that_is_away(server: Server, deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(url=server.url)
    (deployment.folder / "held.py").write_text(_HELD)
    worker = deployment.start_worker(env={"BATCHORD_CHAINS": "held"})
    shell = Shell(tmp_path / "shell", BATCHORD_REDIS_URL=server.url)
    worker.kill()  # it has announced the chain, and must hold no item: the batch could not end
    try:
        batch = deployment.client.submit("held", ["never there"])
        with Terminal(shell, "watch", batch.id) as terminal:
            terminal.wait_for("0% 0/1")
            server.kill()
            terminal.wait_for("0% 0/1", "cannot reach Redis", "(trying again)")
            server.start()
            wait_until(lambda: "trying again" not in terminal.text, what="it is there again")
            batch.cancel()
            assert terminal.wait() == 4
    finally:
        shell.close()


def test_status_is_a_table_and_json_says_how_it_goes(
    shell: Shell, half_done: Batch, gate: Path
) -> None:
    found = shell.run("status", half_done.id, "--json").json
    assert found["request_counts"]["failed"] == 3
    assert [(one["code"], one["count"], one["first"]) for one in found["progress"]["failures"]] == [
        ("one", 2, [1, 4]),
        ("two", 1, [3]),
    ]
    with Terminal(shell, "status", half_done.id, columns=60) as terminal:
        assert terminal.wait() == 0, "it has not ended: nothing is wrong yet"
        assert terminal.lines[0] == half_done.id
        for line in ("status     in_progress", "done       6 of 8 (75%)", "running    2"):
            assert line in terminal.lines
        assert "           one 2 (first: #1, #4)" in terminal.lines
    gate.touch()
    half_done.wait(20)
    with Terminal(shell, "list", columns=50) as terminal:
        assert terminal.wait() == 0
        assert half_done.id in terminal.lines
        assert "  held · completed · 8/8 · 3 failed · " in terminal.text


def shown(what: RenderableType, columns: int) -> str:
    """Return what a terminal of this many columns shows, its lines joined as in reading."""
    out = Console(width=columns, file=io.StringIO(), markup=False, emoji=False)
    out.print(what)
    assert isinstance(out.file, io.StringIO)
    lines = out.file.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    return " ".join(" ".join(lines).split())


def sight(**more: Any) -> Sight:
    """A batch half-way."""
    counts = RequestCounts(total=20_000, succeeded=19_000, failed=999)
    record = BatchRecord(
        id=f"batch_{'0' * 24}",
        chain="describe-each-package-with-care",
        status=BatchStatus.IN_PROGRESS,
        request_counts=counts,
        running=32,
        usage=Usage(
            input_tokens=1_200_000,
            output_tokens=34_567,
            cost_nanos=12_345_678_901,
            rate_limit_waits=1_204,
            rate_limit_wait_ms=725_000,
        ),
        created_at=datetime.now(UTC) - timedelta(hours=26),
        in_progress_at=datetime.now(UTC) - timedelta(hours=26),
    ).model_copy(update=more)
    failures = [FailureGroup(code=f"code_{n}", count=n, first=[n]) for n in range(9, 1, -1)]
    progress = Progress(
        id=record.id,
        status=record.status,
        request_counts=counts,
        rate=12.34,
        eta=3725.0,
        failures=[FailureGroup(code="\x1b[2J", count=955, first=[1, 2]), *failures],
        attempts={1: 19_000, 2: 990, 10: 9},
        throughput=[],
    )
    return Sight(record, progress)


@pytest.mark.parametrize("columns", [34, 60, 120])
def test_the_view_is_whole_however_narrow_it_is(columns: int) -> None:
    said = shown(view(sight()), columns)
    for part in (
        "describe-each-package-with-care in_progress",
        "99% 19,999/20,000",
        "12.3/s · ETA 1:02:05 · 1.23M tokens, $12.35 · 32 running · 1d 02:00:0",
        "999 failed: \ufffd[2J 955, code_9 9, code_8 8, code_7 7, code_6 6, and 4 more codes",
    ):
        assert part in said


@pytest.mark.parametrize("columns", [34, 60, 120])
def test_details_are_whole_however_narrow_they_are(columns: int) -> None:
    reason = PauseReason(code="insufficient_quota", message="no \x07 money", index=7)
    paused = sight(status=BatchStatus.PAUSED, reason=reason, metadata={"team": "\x1b[1m"})
    said = shown(status_view.table(paused.record, paused.progress), columns)
    for part in (
        f"batch_{'0' * 24}",
        "19,999 of 20,000 (99%)",
        "\ufffd[2J 955 (first: #1, #2)",
        "ETA 1:02:05",
        "1,234,567 tokens (1,200,000 in, 34,567 out), $12.35",
        "19,000 took 1, 990 took 2, 9 took 10 or more",
        "1,204 calls for rate limits, 12:05 in all",
        "team=\ufffd[1m",
        "Paused, insufficient_quota: no \ufffd money (item 7)",
    ):
        assert part in said


def test_times_are_said_as_a_clock_does() -> None:
    said = [render.span(seconds) for seconds in (0, 7.4, 59.6, 3_723, 200_000)]
    assert said == ["0:00", "0:07", "1:00", "1:02:03", "2d 07:33:20"]
