"""`batchord serve` as it starts: keys, addresses, health."""

import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from batchord.gateway.keys import PREFIX, hash_of, new_key
from batchord.ledger.settings import Settings
from tests.conftest import Deploy
from tests.support.cli_harness import Running, Shell
from tests.support.harness import Deployment
from tests.support.valkey import Server

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def shell(deployment: Deployment) -> Iterator[Shell]:
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    yield shell
    shell.close()


def _url(running: Running) -> str:
    running.wait_for("Serving", timeout=60)
    return str(re.findall(r"http://\S+/v1", running.err)[0])


def _asked(url: str, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx2.get(f"{url}/batches", headers=headers, timeout=60).status_code


def test_a_key_is_made_at_the_first_start_shown_once_and_kept_as_a_hash(shell: Shell) -> None:
    first = shell.start("serve", "--port", "0")
    url = _url(first)
    [key] = re.findall(rf"{PREFIX}\S+", first.err)
    assert _asked(url, key) == 200
    assert _asked(url, key + "x") == 401
    kept = shell.home / "serve-key"
    assert kept.read_text().strip() == hash_of(key)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    for path in ("healthz", "readyz"):
        found = httpx2.get(url.replace("/v1", f"/{path}"), timeout=60)
        assert (found.status_code, found.json()) == (200, {"status": "ok"})
    first.send(signal.SIGTERM)
    assert first.wait() in (0, 130)

    second = shell.start("serve", "--port", "0")
    assert _asked(_url(second), key) == 200
    assert PREFIX not in second.err


@pytest.mark.parametrize("mode", [0o755, 0o777], ids=["readable", "writable"])
def test_the_folder_of_the_key_is_its_users_alone(mode: int, tmp_path: Path) -> None:
    from batchord.gateway.keys import own_keys

    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    _, key = own_keys(home)
    assert key is not None
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [each.name for each in home.iterdir()] == ["serve-key"]
    assert own_keys(home)[1] is None, "it is made once"


def test_a_link_is_no_folder_for_the_key(tmp_path: Path) -> None:
    from batchord.gateway.keys import own_keys
    from batchord.ledger.core.private_files import PrivateFolderError

    (tmp_path / "home").symlink_to(tmp_path)
    with pytest.raises(PrivateFolderError, match="set BATCHORD_HOME"):
        own_keys(tmp_path / "home")
    assert not (tmp_path / "serve-key").exists()


def test_a_key_for_the_file_is_shown_and_its_hash_is_enough(shell: Shell) -> None:
    made = shell.run("serve", "--new-key", "ann")
    [key] = re.findall(rf"{PREFIX}\S+", made.out)
    (shell.folder / "keys.toml").write_text(made.out)
    assert hash_of(key) in made.out
    running = shell.start("serve", "--port", "0", "--keys", "keys.toml")
    assert _asked(_url(running), key) == 200


_TABLE = f'[keys.ann]\nsha256 = "{hash_of("a")}"\n'

BAD_KEYS = {
    "not there": (None, "No such file"),
    "not TOML": ("keys = {", "is not TOML"),
    "empty": ("", "has no keys"),
    "a key and no hash": (f'[keys.ann]\nsha256 = "{new_key()}"', "must be 64 hex digits"),
    "no hash": ("[keys.ann]\npriority = 1", "sha256: Field required"),
    "a word too much": (_TABLE + "budgett = 1", "budgett: Extra inputs"),
    "a bad priority": (_TABLE + "priority = 10", "priority: "),
    "a bad name": (_TABLE.replace("ann", '"a b"'), "a name is of"),
    "a webhook without a secret": (_TABLE + 'webhook_url = "https://a/b"', "go together"),
    "a secret without a webhook": (_TABLE + 'webhook_secret_env = "A"', "go together"),
    "a secret itself": (
        _TABLE + 'webhook_url = "https://a/b"\nwebhook_secret_env = "whsec_YQ=="',
        "webhook_secret_env: ",
    ),
    "twice": (_TABLE + _TABLE.replace("ann", "bob"), "the same sha256"),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_bad_file_of_keys_is_refused_with_the_cure(name: str, tmp_path: Path) -> None:
    from batchord.gateway.keys import BadKeys, load_keys

    text, words = BAD_KEYS[name]
    path = tmp_path / "keys.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadKeys, match=re.escape(words)) as caught:
        load_keys(path)
    assert PREFIX not in str(caught.value), "a key is never quoted"


@pytest.mark.parametrize("name", ["a b", "", "../a", "x" * 65, "a]"])
def test_no_key_is_made_for_a_name_that_the_file_may_not_have(name: str, shell: Shell) -> None:
    answer = shell.run("serve", "--new-key", name)
    assert answer.code == 2
    assert "a name is of" in answer.err
    assert answer.out == ""


BAD_WEBHOOKS = {
    "another host": "https://elsewhere.example.com/hook",
    "no TLS": "http://hooks.example.com/hook",
    "an address": "https://127.0.0.1/hook",
}


@pytest.mark.parametrize("name", BAD_WEBHOOKS)
def test_a_tenants_webhook_that_may_not_be_sent_is_refused_at_the_start(name: str) -> None:
    from batchord.gateway.keys import BadKeys, Keys, Tenant, check_webhooks

    url = BAD_WEBHOOKS[name]
    tenant = Tenant(sha256=hash_of("a"), webhook_url=url, webhook_secret_env="A")
    settings = Settings(webhook_hosts=("hooks.example.com",))
    with pytest.raises(BadKeys, match="keys.ann: webhook_url: ") as caught:
        check_webhooks(Keys({"ann": tenant}), settings)
    assert url not in str(caught.value)


def test_anything_but_loopback_needs_a_file_of_keys(shell: Shell) -> None:
    answer = shell.run("serve", "--host", "0.0.0.0", "--port", "0")
    assert answer.code == 2
    assert "give --keys" in answer.err
    assert not shell.home.exists()


def test_without_redis_it_does_not_start_and_later_it_is_not_ready(
    server: Server, deploy: Deploy
) -> None:
    deployment = deploy(url=server.url)
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=server.url)
    try:
        running = shell.start("serve", "--port", "0")
        url = _url(running)
        [key] = re.findall(rf"{PREFIX}\S+", running.err)
        server.kill()
        assert httpx2.get(url.replace("/v1", "/healthz"), timeout=60).status_code == 200
        with httpx2.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
            for path in ("/readyz", "/v1/batches", "/v1/files", "/v1/batches"):
                found = client.get(url.replace("/v1", path))
                assert found.status_code == 503
                assert found.headers["retry-after"]
                assert found.headers["x-request-id"].startswith("req_")
                assert found.json()["error"]["type"] == "server_error"
        # No part of the answer is taken for a fault of the server's own.
        assert "Traceback" not in running.err
        again = shell.run("serve", "--port", "0")
        assert again.code == 2
        assert "cannot reach Redis" in again.err
        server.start()
        assert _asked(url, key) == 200
    finally:
        shell.close()
