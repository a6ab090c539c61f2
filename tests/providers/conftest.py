"""One misbehaving provider, and the environment that points to it."""

from collections.abc import Iterator

import pytest

from tests.providers.server import MisbehavingServer


@pytest.fixture(scope="session")
def misbehaving() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as server:
        yield server


@pytest.fixture
def provider(misbehaving: MisbehavingServer, monkeypatch: pytest.MonkeyPatch) -> MisbehavingServer:
    """The provider without rules or requests of earlier tests; OPENAI_* point to it."""
    misbehaving.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", misbehaving.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("OPENAI_MODEL", "test-model")
    monkeypatch.setenv("OPENAI_EMBEDDING_MODEL", "test-embedding")
    # What a provider answers is judged here, and not whether it is down.
    monkeypatch.setenv("BATCHORD_OUTAGE_PATIENCE", "0")
    return misbehaving
