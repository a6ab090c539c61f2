"""`batchord worker`, and the plain Celery commands: workers that come back, and end softly."""

import os
import signal
from collections.abc import Iterator
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from tests.support.cli_harness import Running, Shell
from tests.support.harness import Deployment, lines_of
from tests.support.valkey import free_port
from tests.support.waiting import wait_until

#: A user's own modules.
_MINE = """
import asyncio, os
from batchord.chains import register

async def shout(text):
    with open("seen", "a") as seen:
        print(text, os.getpid(), file=seen)
    while text == "wait" and not os.path.exists("gate"):
        await asyncio.sleep(0.02)
    return text.upper()

register("shout", shout)
"""
_SHADOW = "raise RuntimeError('the folder shadows what is ours')\n"


@pytest.fixture
def shell(deployment: Deployment) -> Iterator[Shell]:
    """A folder with packages that are called as ours are, and a module of chains."""
    shell = Shell(
        deployment.folder / "shell",
        BATCHORD_REDIS_URL=deployment.url,
        # What a dead worker held is soon free.
        BATCHORD_LEASE="1",
        BATCHORD_SWEEP_INTERVAL="0.3",
    )
    shell.module("mine", _MINE)
    yield shell
    shell.close()


def _ready(worker: Running, *, times: int = 1) -> None:
    worker.wait_for(" ready.", times=times)


def _workers(shell: Shell) -> set[int]:
    return set(shell.processes("-m batchord.worker"))


def test_a_killed_worker_is_replaced_and_what_it_held_is_run_again(
    shell: Shell, deployment: Deployment
) -> None:
    supervisor = shell.start("worker", "--chains", "mine", "--processes", "2", "--concurrency", "2")
    _ready(supervisor, times=2)
    before = _workers(shell)
    assert len(before) == 2
    batch = deployment.client.submit("shout", ["wait"] * 3 + ["go"])
    seen = shell.folder / "seen"
    wait_until(lambda: len(lines_of(seen)) >= 3, what="three items are held")
    victim = int(lines_of(seen)[0].split()[1])

    os.kill(victim, signal.SIGKILL)

    wait_until(lambda: len(_workers(shell)) == 2, what="there are two workers again")
    _ready(supervisor, times=3)
    assert len(_workers(shell) - before) == 1
    assert "exited with code -9" in supervisor.err
    (shell.folder / "gate").touch()
    batch.wait(timeout=20)
    assert batch.outputs() == ["WAIT"] * 3 + ["GO"]

    supervisor.send(signal.SIGTERM)
    assert supervisor.wait() == 0
    shell.check_nothing_is_left(timeout=0)


def test_told_to_end_it_lets_what_runs_come_to_its_end(
    shell: Shell, deployment: Deployment
) -> None:
    supervisor = shell.start("worker", "--chains", "mine", "--processes", "1", "--concurrency", "2")
    _ready(supervisor)
    batch = deployment.client.submit("shout", ["wait"])
    wait_until(lambda: lines_of(shell.folder / "seen"), what="the item runs")

    supervisor.send(signal.SIGTERM)

    supervisor.wait_for("shutdown")
    assert not supervisor.ended
    (shell.folder / "gate").touch()
    assert supervisor.wait() == 0
    # Recorded; the gather is in the queue, for the next worker.
    assert batch.record().request_counts.succeeded == 1
    assert len(lines_of(shell.folder / "seen")) == 1, "it did not run twice"
    shell.check_nothing_is_left(timeout=0)


def test_when_it_is_killed_its_workers_end_too(shell: Shell) -> None:
    supervisor = shell.start("worker", "--chains", "mine", "--processes", "1")
    _ready(supervisor)
    assert _workers(shell)

    supervisor.send(signal.SIGKILL)

    assert supervisor.wait() == -signal.SIGKILL
    shell.check_nothing_is_left(timeout=8)


def test_a_folder_with_packages_of_our_names_neither_shadows_ours_nor_hides_its_own(
    shell: Shell, deployment: Deployment
) -> None:
    for name in ("batchord", "chains", "ledger", "producer", "worker"):
        shell.module(f"{name}/__init__", _SHADOW)

    supervisor = shell.start("worker", "--chains", "mine", "--processes", "1")

    _ready(supervisor)
    assert deployment.client.submit("shout", ["a", "b"]).outputs() == ["A", "B"]
    assert shell.run("chains", "--chains", "mine").code == 0
    supervisor.send(signal.SIGINT)
    assert supervisor.wait() == 0
    assert "shadows" not in supervisor.err


def test_celerys_own_commands_do_by_themselves(shell: Shell, deployment: Deployment) -> None:
    shell.env |= {"BATCHORD_CHAINS": "mine", "FLOWER_BASIC_AUTH": "watcher:only-for-this-test"}
    port = free_port()
    app = ("-A", "batchord.worker.app")
    flower = shell.start(*app, "flower", f"--port={port}", program="celery")
    worker = shell.start(*app, "worker", "-P", "threads", "-c", "2", "-l", "INFO", program="celery")

    _ready(worker)
    assert deployment.client.submit("shout", ["a", "b"]).outputs() == ["A", "B"]
    wait_until(lambda: _status(f"http://127.0.0.1:{port}/") == 401, what="Flower answers")
    for each in (worker, flower):
        each.send(signal.SIGTERM)
        assert each.wait() == 0, each.err


def _status(url: str) -> int | None:
    try:
        with urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code
    except (URLError, ConnectionError):
        return None
