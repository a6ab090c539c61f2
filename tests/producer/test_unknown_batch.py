"""A batch that Redis has lost is said to be unknown at once, by whatever asks, waits or runs it."""

import asyncio
import time
from collections.abc import AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.errors import UnknownBatch
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.cli_harness import Shell
from tests.support.harness import Deployment, lines_of, wait_until
from tests.support.valkey import Server

pytestmark = pytest.mark.timeout(60)

#: Seconds within which a call that waits has noticed, and within which one that only asks has, on a
#: busy machine: far below the minute for which a silent server is borne.
SOON, AT_ONCE = 20.0, 5.0

#: What waits for a batch that will never end.
WAITING: dict[str, Callable[[Batch], Any]] = {
    "wait": lambda batch: batch.wait(60),
    "results": lambda batch: list(batch.results()),
    "as_completed": lambda batch: list(batch.as_completed()),
    "outputs": lambda batch: batch.outputs(),
    "await_": lambda batch: asyncio.run(batch.await_(60)),
    "async results": lambda batch: asyncio.run(drained(batch.results())),
    "async as_completed": lambda batch: asyncio.run(drained(batch.as_completed())),
}

#: What asks about it once.
ASKING: dict[str, Callable[[Batch], Any]] = {
    "status": lambda batch: batch.record().status,
    "record": lambda batch: batch.record(),
    "arecord": lambda batch: asyncio.run(batch.arecord()),
    "items": lambda batch: list(batch.items()),
    "history": lambda batch: batch.history(0),
    "cancel": lambda batch: batch.cancel(),
    "retry_failed": lambda batch: batch.retry_failed(),
}


async def drained(items: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in items]


def gated(deployment: Deployment, folder: Path) -> Batch:
    """A batch of which four items run and wait for a gate."""
    register("gated", lambda value: value, replace=True)
    paths = {"path": str(folder / "starts"), "gate": str(folder / "gate")}
    batch = deployment.client.submit("gated", [{"value": i, **paths} for i in range(60)])
    running = lambda: len(lines_of(folder / "starts")) == 4  # noqa: E731
    wait_until(running, what="four items run")
    return batch


def test_a_batch_that_an_empty_server_knows_no_more_is_said_to_be_unknown_at_once(
    server: Server, deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy(url=server.url, lease=2.0, sweep_interval=0.2)
    worker = deployment.start_worker(concurrency=4)
    batch = gated(deployment, tmp_path)
    with ThreadPoolExecutor(len(WAITING)) as threads:
        waiting = {name: threads.submit(call, batch) for name, call in WAITING.items()}
        clients = lambda: deployment.redis.info("clients")["blocked_clients"]  # noqa: E731
        # The async ones share one connection.
        blocking = len([name for name in WAITING if "async" not in name and name != "await_"])
        wait_until(lambda: clients() > blocking, what="all wait")
        server.restart_empty(down=1.5)  # longer than a call that does not wait would try
        back = time.monotonic()
        for name, future in waiting.items():
            with pytest.raises(UnknownBatch, match="submit it again"):
                future.result(SOON)
            assert time.monotonic() - back < SOON, name
    for call in ASKING.values():
        asked = time.monotonic()
        with pytest.raises(UnknownBatch, match="submit it again"):
            call(batch)
        assert time.monotonic() - asked < AT_ONCE
    with pytest.raises(UnknownBatch):
        deployment.client.retrieve(batch.id)
    (tmp_path / "gate").touch()
    wait_until(
        lambda: worker.log.count("late outcome refused") >= 4, what="what ran is of no use now"
    )
    again = deployment.client.submit(
        "gated", [{"value": 0, "path": str(tmp_path / "again"), "gate": str(tmp_path / "gate")}]
    )
    assert again.wait(15).request_counts.succeeded == 1
    assert again.outputs() == [worker.pid]
    assert worker.alive
    assert len(worker.log.splitlines()) < 500, "it does not go round in circles"


@pytest.mark.parametrize("command", ["status", "watch", "results", "results --wait", "errors"])
def test_the_command_line_says_that_a_batch_is_unknown(
    deployment: Deployment, tmp_path: Path, command: str
) -> None:
    register("echo", lambda value: value, replace=True)
    batch = deployment.client.submit("echo", [1])
    deployment.redis.flushdb()
    name, *options = command.split()
    shell = Shell(tmp_path / "shell", BATCHORD_REDIS_URL=deployment.url)
    answer = shell.run(name, batch.id, *options)
    assert answer.code == 2
    assert f"unknown batch '{batch.id}'" in answer.err
    assert answer.out == ""
