"""One worker for all tests of this folder, which has the chains of `chains_for_tests.parity`."""

from collections.abc import Iterator

import pytest

from tests.conftest import _deploy
from tests.parity.traces import Traces
from tests.support.harness import Deployment, provider_env
from tests.support.openai_server import OpenAIServer


@pytest.fixture(scope="package")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as started:
        yield started


@pytest.fixture(scope="package")
def traces() -> Iterator[Traces]:
    with Traces() as started:
        yield started


@pytest.fixture(scope="package")
def worker(
    valkey_port: int,
    _databases: Iterator[int],
    tmp_path_factory: pytest.TempPathFactory,
    server: OpenAIServer,
    traces: Traces,
) -> Iterator[Deployment]:
    env = {"BATCHORD_CHAINS": "tests.chains_for_tests.parity", **provider_env(server)}
    env |= traces.env
    for deploy in _deploy(valkey_port, _databases, tmp_path_factory.mktemp("parity")):
        deployment = deploy(alike_limit=0)
        deployment.start_worker(env=env)
        yield deployment
