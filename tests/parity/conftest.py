"""One worker for all tests of this folder, which has the chains of `chains_for_tests.parity`."""

from collections.abc import Iterator

import pytest

from tests.conftest import Deploy
from tests.harness import Deployment, provider_env
from tests.openai_server import OpenAIServer


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as started:
        yield started


@pytest.fixture(scope="module")
def worker(deploy_for_module: Deploy, server: OpenAIServer) -> Deployment:
    deployment = deploy_for_module(alike_limit=0)
    env = {"BATCHORD_CHAINS": "tests.chains_for_tests.parity", **provider_env(server)}
    deployment.start_worker(env=env)
    return deployment
