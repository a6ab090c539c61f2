"""The chapter on batch execution, through workers: as LangChain's chains and as ours."""

from collections.abc import Iterator
from typing import Any

import pytest

from batchord.chains import get_chain
from batchord.ledger.errors import ItemNotSucceeded
from batchord.producer import RemoteRunnable
from tests.chains_for_tests import seed
from tests.conftest import Deploy
from tests.support.harness import Deployment
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(60)

PROVIDER = {"OPENAI_API_KEY": "sk-loopback-only", "OPENAI_MODEL": "test-model"}


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="module")
def schooled(deploy_for_module: Deploy, provider: OpenAIServer) -> Deployment:
    """A deployment whose worker has the chapter's chains."""
    deployment = deploy_for_module()
    chains = {"BATCHORD_CHAINS": "tests.chains_for_tests.seed"}
    deployment.start_worker(env=PROVIDER | chains | {"OPENAI_BASE_URL": provider.base_url})
    return deployment


@pytest.fixture(autouse=True)
def _environment(provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what runs in this process ask the same provider."""
    for name, value in (PROVIDER | {"OPENAI_BASE_URL": provider.base_url}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", list(seed.CASES))
def test_workers_give_what_both_give_in_process(schooled: Deployment, name: str) -> None:
    inputs, expected = seed.CASES[name]
    here = [get_chain(name).chain.batch(inputs), seed.CHAINS[name][1].batch(inputs)]
    there = [
        RemoteRunnable(each, client=schooled.client).batch(inputs) for each in (name, f"{name}-lc")
    ]
    assert here[0] == here[1] == there[0] == there[1]
    assert len(there[0]) == len(inputs)
    assert expected is None or there[0] == expected


def test_errors_stand_in_the_same_places(schooled: Deployment) -> None:
    for name in ("seed-short", "seed-short-lc"):
        here = get_chain(name).chain.batch(seed.SHORT_INPUTS, return_exceptions=True)
        there = RemoteRunnable(name, client=schooled.client).batch(
            seed.SHORT_INPUTS, return_exceptions=True
        )
        assert [comparable(each) for each in there] == [comparable(each) for each in here]


def comparable(result: Any) -> Any:
    """An output, or what an error says."""
    if isinstance(result, ItemNotSucceeded):
        return f"{result.code}: {str(result).split(': ', 2)[2]}"
    return f"{type(result).__name__}: {result}" if isinstance(result, Exception) else result
