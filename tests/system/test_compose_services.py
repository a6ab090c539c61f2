"""The worker and Flower of docker-compose.yml, run for real by tests/support/compose.py."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from batchord.producer import Client
from batchord.worker.flower.sse import STEP
from tests.support.compose import SECRETS, Compose, Host
from tests.support.flower_server import Site
from tests.support.waiting import wait_until

CHAINS = """
from batchord.chains import Lambda, register

register("shout", Lambda(str.upper))
"""
CANARY = "canary-input"
LOGIN = SECRETS["FLOWER_BASIC_AUTH"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host on which all three services of the file run, each as one container."""
    compose = Compose.load({**SECRETS, "BATCHORD_CHAINS": "deployed_chains"})
    host = Host(compose, tmp_path_factory.mktemp("host"))
    (host.app / "deployed_chains.py").write_text(CHAINS)
    with host.valkey(), host.running("worker"), host.running("flower"):
        for name in ("worker", "flower"):
            wait_until(partial(healthy, host, name), what=f"{name} is healthy", timeout=60)
        yield host


def healthy(host: Host, name: str) -> bool:
    return host.check(name).returncode == 0


@pytest.fixture
def client(host: Host) -> Iterator[Client]:
    with Client(host.environment("worker")["BATCHORD_REDIS_URL"]) as client:
        yield client


def flower(host: Host) -> Site:
    return Site(f"http://127.0.0.1:{host.flower_port}")


def ask_flower(
    host: Host, path: str, login: str | None = LOGIN, data: Any = None
) -> tuple[int, str]:
    """Return the status and the text of Flower's answer."""
    method = "GET" if data is None else "POST"
    return flower(host).ask(path, login=login, method=method, data=data)


def test_workers_run_a_batch_as_the_restricted_user(client: Client) -> None:
    batch = client.submit("shout", [f"{CANARY}-{n}" for n in range(20)])
    batch.wait(timeout=60)
    assert batch.outputs() == [f"CANARY-INPUT-{n}" for n in range(20)]


@pytest.mark.parametrize("path", ["/", "/tasks", "/broker", "/batches", "/api/batches"])
@pytest.mark.parametrize("login", [None, "ops:wrong", ":", "ops"])
def test_flower_shows_nothing_without_its_password(
    host: Host, path: str, login: str | None
) -> None:
    assert ask_flower(host, path, login)[0] == 401


def test_flower_shows_workers_tasks_and_the_queue_but_no_content(
    host: Host, client: Client
) -> None:
    batch = client.submit("shout", [CANARY] * 5)
    batch.wait(timeout=60)

    def tasks() -> str:
        return ask_flower(host, "/api/tasks?limit=1000")[1]

    wait_until(lambda: tasks().count(batch.id) >= 5, what="Flower shows the items")
    pages = [tasks()]
    paths = ["/workers", "/tasks", "/broker", "/api/workers?refresh=1", "/api/queues/length"]
    paths += ["/batches", "/api/batches", f"/batch/{batch.id}", f"/api/batches/{batch.id}"]
    for path in paths:
        status, text = ask_flower(host, path)
        assert status == 200, path
        pages.append(text)
    assert "batchord.run_items" in pages[0]
    assert not any(CANARY in page or CANARY.upper() in page for page in pages)


def test_flower_runs_no_tasks_for_anyone(host: Host) -> None:
    path = "/api/task/send-task/batchord.gather"
    assert ask_flower(host, path, data={"args": ["b", 0]})[0] == 403


def test_valkey_denies_the_services_nothing_that_they_need(host: Host, client: Client) -> None:
    batch = client.submit("shout", [CANARY])
    batch.wait(timeout=60)
    paths = ["/workers", "/tasks", "/broker", "/api/workers?refresh=1", "/metrics", "/batches/data"]
    for path in (*paths, f"/batch/{batch.id}", f"/batch/{batch.id}/data"):
        assert ask_flower(host, path)[0] == 200
    with flower(host).events(f"/batch/{batch.id}/events", login=LOGIN) as events:
        assert batch.id in next(events)[1]
        time.sleep(3 * STEP)  # it has looked whether there is news
    denied = [(each["username"], each["object"]) for each in host.auditor().acl_log()]
    assert denied == []


def test_a_stopped_worker_is_gone_before_docker_would_kill_it(host: Host) -> None:
    grace = float(host.compose.service("worker")["stop_grace_period"].removesuffix("s"))
    with host.running("worker") as worker:
        wait_until(lambda: worker.log.count(" ready.") == 2, what="the workers are ready")
        worker.stop()
        assert worker.wait(grace) == 0
