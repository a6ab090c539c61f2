"""docker-compose.yml does what its comments promise, run by tests/support/compose.py."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from batchord.ledger.settings import Settings
from tests.support.compose import ROOT, SECRETS, Compose, Host, MissingVariable

PASSWORDS = {
    "batchord": SECRETS["BATCHORD_REDIS_PASSWORD"],
    "flower": SECRETS["FLOWER_REDIS_PASSWORD"],
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host on which the Valkey of the file runs."""
    host = Host(Compose.load(SECRETS), tmp_path_factory.mktemp("host"))
    with host.valkey():
        yield host


def start_all(compose: Compose) -> None:
    for service in compose.file["services"]:
        compose.command(service)
        compose.environment(service)


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize("value", [None, ""])
def test_nothing_starts_without_its_secret(name: str, value: str | None) -> None:
    variables = {key: each for key, each in SECRETS.items() if key != name}
    if value is not None:
        variables[name] = value
    compose = Compose.load(variables)
    with pytest.raises(MissingVariable, match=name):
        start_all(compose)


def test_no_secret_is_on_a_command_line() -> None:
    compose = Compose.load(SECRETS)
    for service in compose.file["services"]:
        line = " ".join(compose.command(service))
        assert not any(secret in line for secret in SECRETS.values())


def test_only_flower_and_serve_are_published_and_only_on_loopback() -> None:
    services = Compose.load(SECRETS).file["services"]
    assert {name: each["ports"] for name, each in services.items() if "ports" in each} == {
        "flower": ["127.0.0.1:5555:5555"],
        "serve": ["127.0.0.1:8000:8000"],
    }


def test_every_service_restarts_is_bounded_and_gains_no_privileges() -> None:
    for service in Compose.load(SECRETS).file["services"].values():
        assert service["restart"] == "always"
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {"mem_limit", "pids_limit"} <= service.keys()


def test_workers_are_replicated_and_stopped_more_slowly_than_they_drain() -> None:
    worker = Compose.load(SECRETS).service("worker")
    assert worker["deploy"]["replicas"] >= 2
    assert worker["read_only"]
    assert float(worker["stop_grace_period"].removesuffix("s")) >= Settings().shutdown_grace + 10


def test_prices_and_webhooks_are_passed_on_where_they_are_set() -> None:
    names = ("PRICES", "WEBHOOK_URL", "WEBHOOK_SECRET", "WEBHOOK_HOSTS")
    given = {f"BATCHORD_{name}": f"value of {name}" for name in names}
    assert given.items() <= Compose.load({**SECRETS, **given}).environment("worker").items()
    assert not given.keys() & Compose.load(SECRETS).environment("worker").keys()


def test_the_chains_that_run_by_default_are_mounted() -> None:
    compose = Compose.load(SECRETS)
    module = compose.environment("worker")["BATCHORD_CHAINS"]
    folder = module.partition(".")[0]
    assert f"./{folder}:/app/{folder}:ro" in compose.service("worker")["volumes"]
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()


def test_serve_runs_if_it_is_asked_for_and_shares_its_files_with_the_workers() -> None:
    compose = Compose.load(SECRETS)
    serve, worker = compose.service("serve"), compose.service("worker")
    assert serve["profiles"] == ["serve"]
    assert serve["read_only"]
    assert serve["volumes"] == ["files:/data/files"]
    assert "files:/data/files:ro" in worker["volumes"], "they read, and never write"
    for service in ("serve", "worker"):
        assert compose.environment(service)["BATCHORD_FILES"] == "/data/files"
    [config] = serve["configs"]
    assert compose.command("serve")[-1] == config["target"]
    assert compose.file["configs"][config["source"]] == {"file": "./keys.toml"}


def test_the_image_has_all_folders_and_what_serve_needs() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text()
    for link in (ROOT / "batchord").iterdir():
        if link.is_symlink():
            assert f"COPY {link.name}/ {link.name}/" in dockerfile
            assert f"!{link.name}/" in ignored
    assert "install --require-hashes -r requirements/serve.txt" in dockerfile
    serve = _pins("serve")
    assert serve.items() >= _pins("run").items(), "the workers' are the same"
    assert serve.items() <= _pins("dev").items(), "the tests ran with these"
    assert serve.keys() >= {"fsspec", "h11", "python-multipart", "starlette", "uvicorn"}


def _pins(name: str) -> dict[str, str]:
    """Return the packages that a file of requirements pins."""
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9][^=]*)==(\S+)", text, re.MULTILINE))


def test_valkey_logs_every_write_and_never_evicts(host: Host) -> None:
    auditor = host.auditor()
    settings = auditor.config_get("append*", "maxmemory*")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["maxmemory"] not in (None, "0")


def test_a_killed_valkey_comes_back_with_its_data(tmp_path: Path) -> None:
    host = Host(Compose.load(SECRETS), tmp_path)
    with host.valkey() as process:
        host.connect("batchord", PASSWORDS["batchord"]).set("kept", "yes")
        process.kill()
    with host.valkey():
        assert host.connect("batchord", PASSWORDS["batchord"]).get("kept") == "yes"


@pytest.mark.parametrize(
    ("user", "password"),
    [(None, None), ("default", PASSWORDS["batchord"]), ("batchord", "wrong"), ("flower", "wrong")],
)
def test_nobody_enters_valkey_without_a_password(
    host: Host, user: str | None, password: str | None
) -> None:
    with pytest.raises(redis.AuthenticationError):
        host.connect(user, password).ping()


@pytest.mark.parametrize("user", sorted(PASSWORDS))
@pytest.mark.parametrize(
    "command",
    [
        "ACL LIST",
        "CONFIG GET *",
        "CONFIG SET appendonly no",
        "DEBUG JMAP",
        "FLUSHALL",
        "FLUSHDB",
        "FUNCTION FLUSH",
        "KEYS *",
        "MIGRATE 127.0.0.1 6380 a 0 1000",
        "MODULE LIST",
        "MONITOR",
        "REPLICAOF NO ONE",
        "SAVE",
        "SCRIPT FLUSH",
        "SHUTDOWN NOSAVE",
    ],
)
def test_no_service_may_reconfigure_empty_or_list_valkey(
    host: Host, user: str, command: str
) -> None:
    client = host.connect(user, PASSWORDS[user])
    # DEBUG is refused before the user's rights are looked at.
    with pytest.raises(redis.ResponseError, match=r"no permissions|DEBUG command not allowed"):
        client.execute_command(*command.split())


def test_the_health_check_of_valkey_logs_in(host: Host) -> None:
    check = host.compose.service("valkey")["healthcheck"]["test"]
    assert check[1:3] == ["valkey-cli", "-e"]
    assert check[-1] == "ping"
    user = check[check.index("--user") + 1]
    password = host.compose.environment("valkey")["VALKEYCLI_AUTH"]
    assert host.connect(user, password).ping()


def test_flower_reads_counts_and_never_an_input_or_an_outcome(host: Host) -> None:
    flower = host.connect("flower", PASSWORDS["flower"])
    assert flower.llen("batchord") == 0
    assert flower.hgetall("batchord:{a}:meta") == {}
    for key in ("in:0", "out:0", "hist:0", "done", "runs"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            flower.hgetall(f"batchord:{{a}}:{key}")
    with pytest.raises(redis.exceptions.NoPermissionError):
        flower.hset("batchord:{a}:meta", "status", "completed")
