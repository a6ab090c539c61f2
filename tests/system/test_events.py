"""Anyone who watches a batch hears the truth of the moment, and when it is over."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.errors import UnknownBatch
from batchord.ledger.models import BatchStatus
from batchord.ledger.storage.events import BatchEvent, ProgressEvent, StatusEvent
from batchord.ledger.storage.keys import EVENTS_KEPT
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until
from tests.support.valkey import Server

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _chains() -> None:
    register("nap", _same, replace=True)
    register("echo", _same, replace=True)


def _same(value: Any) -> Any:
    return value


def naps(count: int, seconds: float) -> list[dict[str, Any]]:
    return [{"seconds": seconds, "value": index} for index in range(count)]


def statuses(events: list[BatchEvent]) -> list[BatchStatus]:
    return [event.status for event in events if isinstance(event, StatusEvent)]


def done(events: list[BatchEvent]) -> list[int]:
    return [event.request_counts.done for event in events if isinstance(event, ProgressEvent)]


def check_end(batch: Batch, events: list[BatchEvent]) -> None:
    """The last event is the end's, and the last counts are the batch's."""
    record = batch.record()
    end = events[-1]
    assert isinstance(end, StatusEvent)
    assert (end.status, end.ended_at) == (record.status, record.ended_at)
    assert [event for event in events if isinstance(event, ProgressEvent)][-1].request_counts == (
        record.request_counts
    )
    counts = done(events)
    assert counts == sorted(counts)


def test_a_batch_is_watched_from_its_start_to_its_end(shared: Deployment) -> None:
    batch = shared.client.submit("nap", naps(60, 0.1))
    events = list(batch.events())
    check_end(batch, events)
    seen = statuses(events)
    assert (seen[0], seen[-1]) == (BatchStatus.IN_PROGRESS, BatchStatus.COMPLETED)
    assert len(set(done(events))) >= 3
    assert any(event.running for event in events if isinstance(event, ProgressEvent))


def test_async_code_watches_and_does_something_else_meanwhile(shared: Deployment) -> None:
    batch = shared.client.submit("nap", naps(40, 0.2))

    async def app() -> tuple[list[BatchEvent], float]:
        longest, over = 0.0, False

        async def heartbeat() -> None:
            nonlocal longest
            while not over:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - before)

        beats = asyncio.create_task(heartbeat())
        events = [event async for event in batch.events()]
        over = True
        await beats
        return events, longest

    events, longest = asyncio.run(app())
    check_end(batch, events)
    # Anyone who waited for news in the loop would have held it for the whole of a wait.
    assert longest < 1.0


def test_pause_resume_and_cancel_are_told(deployment: Deployment) -> None:
    batch = deployment.client.submit("echo", range(10))
    told = iter(batch.events())
    first = [next(told), next(told)]
    assert done(first) == [0]
    assert statuses(first) == [BatchStatus.IN_PROGRESS]
    batch.pause()
    assert statuses([next(told)]) == [BatchStatus.PAUSED]
    batch.resume()
    batch.pause()
    batch.resume()
    # All three in one look, in their order.
    three = [next(told) for _ in range(3)]
    assert statuses(three) == [
        BatchStatus.IN_PROGRESS,
        BatchStatus.PAUSED,
        BatchStatus.IN_PROGRESS,
    ]
    batch.cancel()
    rest = list(told)
    assert statuses(rest)[-1] is BatchStatus.CANCELLED
    check_end(batch, rest)


def test_a_batch_that_has_ended_says_so_at_once(deployment: Deployment) -> None:
    batch = deployment.client.submit("echo", range(3))
    batch.cancel()
    for _ in range(2):
        events = list(batch.events())
        assert len(events) == 2
        check_end(batch, events)


def test_who_falls_behind_the_stream_hears_where_it_stands(deployment: Deployment) -> None:
    batch = deployment.client.submit("echo", range(10))
    told = iter(batch.events())
    next(told), next(told)
    key = deployment.client._store.keys.batch(batch.id).events
    batch.pause()
    # As a hundred thousand items would: the stream is trimmed beyond what was read of it.
    for _ in range(3 * EVENTS_KEPT):
        deployment.redis.xadd(key, {"settled": 1}, maxlen=EVENTS_KEPT, approximate=True)
    assert deployment.redis.xlen(key) < 2 * EVENTS_KEPT
    assert statuses([next(told)]) == [BatchStatus.PAUSED]
    batch.cancel()
    check_end(batch, list(told))


def test_many_items_are_few_events(shared: Deployment) -> None:
    count = 5000
    batch = shared.client.submit("echo", range(count))
    began = time.monotonic()
    events = list(batch.events())
    check_end(batch, events)
    # Five looks a second at most, each of one progress; and a handful of statuses.
    assert len(done(events)) <= 5 * (time.monotonic() - began) + 2
    assert len(statuses(events)) <= 4


def test_a_restart_of_redis_is_borne(server: Server, deploy: Deploy) -> None:
    deployment = deploy(url=f"redis://127.0.0.1:{server.port}/0")
    batch = deployment.client.submit("echo", range(10))
    events: list[BatchEvent] = []
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(lambda: events.extend(batch.events()))
        # As `extend` takes them one by one, the watcher waits for the next by then.
        wait_until(lambda: len(events) == 2, what="it is watched")
        server.restart(down=1.0)
        batch.cancel()
        watching.result(30)
    check_end(batch, events)


def test_a_batch_that_is_gone_is_said_while_it_is_watched(deployment: Deployment) -> None:
    batch = deployment.client.submit("echo", range(10))
    told = iter(batch.events())
    next(told), next(told)
    deployment.redis.flushdb()
    with pytest.raises(UnknownBatch):
        next(told)


def test_a_retry_is_watched_like_a_batch_of_its_own(shared: Deployment) -> None:
    batch = shared.client.submit("may-fail", [{"value": 1, "fail": "chain"}])
    batch.wait(20)
    batch.retry_failed()
    events = list(batch.events())
    wait_until(lambda: batch.record().status.ended, what="it ends again")
    assert statuses(events)[-1] is BatchStatus.COMPLETED
    assert statuses(events).count(BatchStatus.COMPLETED) == 1
