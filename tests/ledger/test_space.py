"""Space in Redis: given back when a batch's time is over, and when it is purged."""

import time
from typing import Any

import pytest

from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until
from tests.support.valkey import Server

pytestmark = pytest.mark.timeout(60)

BATCHES = 200
ITEMS = 20
#: Of an item: so that what is left of a batch is seen in the server's memory.
SIZE = 500
#: Batches that run at a time.
TOGETHER = 20
#: Seconds that a batch is readable after its end.
TTL = 1


def used(deployment: Deployment) -> int:
    """The server's memory, in bytes."""
    deployment.redis.execute_command("MEMORY", "PURGE")
    return int(deployment.redis.info("memory")["used_memory"])


def used_alone(deployment: Deployment) -> int:
    """The server's memory once others are gone: buffers of connections come and go."""
    for process in deployment.processes:
        process.kill()
    deployment.client.close()
    # Its connections to the queue would stay.
    deployment.redis.client_kill_filter(_type="normal", skipme=True)
    wait_until(
        lambda: deployment.redis.info("clients")["connected_clients"] == 1, what="they are gone"
    )
    return used(deployment)


def submit(deployment: Deployment, batch: int) -> Batch:
    inputs = [f"{batch} {item} ".ljust(SIZE, "x") for item in range(ITEMS)]
    custom_ids = [f"c{item}" for item in range(ITEMS)]
    return deployment.client.submit(
        "echo",
        inputs,
        custom_ids=custom_ids,
        idempotency_key=f"key {batch}",
        items_per_task=10,
    )


def run(deployment: Deployment, batches: range) -> tuple[list[Batch], int]:
    """Run batches, some at a time, and return them and the most memory that was used."""
    done: list[Batch] = []
    most = 0
    for start in batches[::TOGETHER]:
        some = [submit(deployment, number) for number in range(start, start + TOGETHER)]
        wait_until(lambda: not deployment.redis.zcard("batchord:active"), what="they have ended")
        done += some
        most = max(most, used(deployment))
    return done, most


def left(deployment: Deployment) -> list[str]:
    """Keys of batches, whosever."""
    names: Any = deployment.redis.scan_iter("*batch_*", count=1000)
    return [*names, *deployment.redis.scan_iter("batchord:key:*", count=1000)]


@pytest.mark.parametrize("end", ["expired", "purged"])
def test_two_hundred_batches_leave_no_space_taken(
    server: Server, deploy: Deploy, end: str, request: pytest.FixtureRequest
) -> None:
    deployment = deploy(
        url=server.url, result_ttl=TTL if end == "expired" else 3600, sweep_interval=1
    )
    # What the server remembers of slow commands is the machine's, and no batch's.
    deployment.redis.config_set("slowlog-log-slower-than", -1)
    deployment.start_worker()
    # What the server makes once for its own use: as many purged batches take 0.1 MB, once.
    run(deployment, range(BATCHES // 2))

    def clear() -> None:
        if end == "purged":
            for record in deployment.client.list(limit=500):
                assert deployment.client.purge(record.id)
        wait_until(lambda: not left(deployment), what="the batches' keys are gone")
        index = "batchord:batches"
        wait_until(lambda: not deployment.redis.zcard(index), what="they are listed no more")

    clear()
    before = used_alone(deployment)
    deployment.start_worker()
    _, most = run(deployment, range(BATCHES))
    clear()
    after = used_alone(deployment)
    figures = f"before {before:,}, at most {most:,}, after {after:,} bytes"
    request.node.add_report_section("call", "memory", figures)
    assert after < 1.05 * before, figures
    assert most > before + TOGETHER * ITEMS * SIZE, figures
    assert deployment.leaks() == []
    permanent = deployment.redis.keys()
    assert len(permanent) < 15, permanent


def test_nothing_of_a_batch_that_runs_can_expire(deployment: Deployment) -> None:
    deployment.start_worker()
    gate, path = deployment.folder / "gate", deployment.folder / "lines"
    batch = deployment.client.submit(
        "gated",
        [{"value": i, "path": str(path), "gate": str(gate)} for i in range(ITEMS)],
        custom_ids=map(str, range(ITEMS)),
        idempotency_key="mine",
    )
    wait_until(path.exists, what="it runs")
    keys = [*deployment.keys_of(batch), *deployment.redis.keys("batchord:key:*")]
    assert len(keys) >= 6
    assert {key: deployment.redis.ttl(key) for key in keys if deployment.redis.ttl(key) != -1} == {}
    started = time.monotonic()
    gate.touch()
    assert batch.wait(20).request_counts.succeeded == ITEMS
    keys = [*deployment.keys_of(batch), *deployment.redis.keys("batchord:key:*")]
    kept = {key: deployment.redis.ttl(key) for key in keys}
    ttl = deployment.settings.result_ttl
    assert min(kept.values()) > ttl - 60 - (time.monotonic() - started), kept
    assert max(kept.values()) <= ttl
