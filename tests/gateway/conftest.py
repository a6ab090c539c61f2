"""A server with two tenants, workers and a provider, for the tests of one module."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the official Node SDK, as npm has it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no Node here: `node` and `npm` are needed to test the Node SDK")
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "openai@7", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer: the Node SDK cannot be installed")
    if done.returncode:
        pytest.skip(f"npm cannot install the Node SDK: {done.stderr[-300:]}")
    return folder
