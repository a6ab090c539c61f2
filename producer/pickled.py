"""A client in a pickle: where its server is, and never a password."""

import pickle
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from batchord.ledger.settings import Settings
from batchord.producer.client import Client


def state_of(client: Client) -> dict[str, Any]:
    """Return in which settings the client differs from this process's environment, as plain data.

    Raises:
        PicklingError: its URL has a password that the environment does not have.
    """
    here, mine = Settings(), client.settings
    state: dict[str, Any] = {}
    for name in sorted(mine.model_fields_set):
        value = getattr(mine, name)
        if value == getattr(here, name):
            continue
        if name == "redis_url":
            state[name] = _address(value.get_secret_value())
        elif not isinstance(value, SecretStr):  # those are for workers
            state[name] = value
    return state


def client_of(state: dict[str, Any]) -> Client:
    """Return a client with these settings, and for the rest those of this process's environment."""
    return Client(settings=Settings(**state))


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise pickle.PicklingError(
            "a password would be in the pickle: set BATCHORD_REDIS_URL here and where it is read, "
            "and make the RemoteRunnable without an explicit URL"
        )
    return url
