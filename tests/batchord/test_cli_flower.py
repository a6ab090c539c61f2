"""`batchord flower`: Flower with its Batches tab, and never without a login."""

import re
import signal
from collections.abc import Iterator

import pytest

from tests.support.cli_harness import Shell
from tests.support.flower_server import Site
from tests.support.harness import Deployment
from tests.support.valkey import free_port
from tests.support.waiting import wait_until


@pytest.fixture
def shell(deployment: Deployment) -> Iterator[Shell]:
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    yield shell
    shell.close()


def test_it_makes_a_password_tells_it_and_ends_when_told(shell: Shell) -> None:
    port = free_port()
    running = shell.start("flower", "--port", port, "--read_only=true")
    running.wait_for("password")
    said = re.search(r"Flower +(\S+) \(user (\S+), password (\S+)\)", running.err)
    assert said
    url, login = said[1], f"{said[2]}:{said[3]}"
    flower = Site(url)
    wait_until(lambda: flower.status("/batches", login=login) == 200, what="it answers", timeout=30)
    assert flower.status("/batches", login=None) == 401
    running.send(signal.SIGTERM)
    assert running.wait() == 0
    assert said[3] not in " ".join(shell.processes().values())


def test_a_login_that_is_configured_is_the_login(shell: Shell) -> None:
    port = free_port()
    shell.env["FLOWER_BASIC_AUTH"] = "me:mine"
    running = shell.start("flower", "--port", port)
    flower = Site(f"http://127.0.0.1:{port}")
    wait_until(lambda: flower.status("/", login="me:mine") == 200, what="it answers", timeout=30)
    assert flower.status("/", login="batchord:x") == 401
    assert "password" not in running.err


def test_without_redis_it_says_so_and_does_not_start(shell: Shell) -> None:
    answer = shell.run("flower", env={"BATCHORD_REDIS_URL": "redis://127.0.0.1:1/0"})
    assert answer.code == 2
    assert "Redis" in answer.err
    assert "password" not in answer.err
