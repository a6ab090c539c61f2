"""A server with two tenants, workers and a provider, for the tests of one module."""

from collections.abc import Iterator

import openai
import pytest

from tests.conftest import Deploy
from tests.support.api_server import ApiServer
from tests.support.harness import Deployment, provider_env
from tests.support.openai_server import OpenAIServer


@pytest.fixture
def provider(provider_for_module: OpenAIServer) -> OpenAIServer:
    provider_for_module.reset()
    return provider_for_module


@pytest.fixture(scope="module")
def fleet(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Deployment:
    """A worker that asks the provider."""
    deployment = deploy_for_module()
    home = str(deployment.folder / "home")
    env = {**provider_env(provider_for_module), "BATCHORD_CHAINS": "", "BATCHORD_HOME": home}
    deployment.start_worker(env=env)
    return deployment


@pytest.fixture(scope="module")
def api(fleet: Deployment) -> ApiServer:
    """A server for two tenants."""
    return ApiServer(fleet, {"ann": "", "bob": ""})


@pytest.fixture
def client(api: ApiServer, provider: OpenAIServer) -> Iterator[openai.OpenAI]:
    """The first tenant's client."""
    with api.client("ann") as client:
        yield client
