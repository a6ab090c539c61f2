"""Redis commands of an item, those of scripts too, at one item a task."""

from typing import Any

import pytest

from batchord.chains import register
from tests.support.harness import Deployment

pytestmark = pytest.mark.timeout(120)

ITEMS = 2_000

#: Commands an item at most; 5.5 to 7.2 were measured. A busy machine has more share a round trip.
MOST = 9.0
#: Reads of the server from a connection an item at most: round trips of all kinds.
MOST_ROUND_TRIPS = 1.5


def counted(deployment: Deployment) -> tuple[int, int]:
    """The commands that the server has run, and how often it has read from a connection."""
    commands: Any = deployment.redis.info("commandstats")
    stats: Any = deployment.redis.info("stats")
    return sum(each["calls"] for each in commands.values()), stats["total_reads_processed"]


def test_an_item_of_its_own_task_costs_few_commands(deployment: Deployment) -> None:
    register("echo", lambda value: value, replace=True)
    deployment.start_worker(concurrency=32)
    deployment.client.submit("echo", range(100), items_per_task=1).wait(60)
    commands, reads = counted(deployment)
    batch = deployment.client.submit("echo", range(ITEMS), items_per_task=1)
    record = batch.wait(90)
    after, reads_after = counted(deployment)
    assert record.request_counts.succeeded == ITEMS
    assert (after - commands) / ITEMS < MOST
    assert (reads_after - reads) / ITEMS < MOST_ROUND_TRIPS
