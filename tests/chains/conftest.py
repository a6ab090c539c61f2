"""A loopback provider that the environment points to."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.support.openai_server import OpenAIServer

KEY = "canary-key-0123456789"


@pytest.fixture(scope="session")
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer(api_key=KEY) as server:
        yield server


@pytest.fixture
def server(provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> OpenAIServer:
    """The provider without rules or requests of earlier tests; OPENAI_* point to it."""
    provider.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_MODEL", "test-model")
    monkeypatch.delenv("OPENAI_EMBEDDING_MODEL", raising=False)
    # What a provider answers is judged here, and not whether it is down.
    monkeypatch.setenv("BATCHORD_OUTAGE_PATIENCE", "0")
    return provider


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once the condition holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            # What is waited for happens in other threads, which set no event of this loop.
            await asyncio.sleep(0.001)
