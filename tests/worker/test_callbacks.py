"""Callbacks at a batch's end: called once, whichever process dies on the way."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group

from batchord.chains import register
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.core.failpoints import VARIABLE
from batchord.ledger.lifecycle.completion_callback import MOST_BYTES, publish_callback
from batchord.ledger.models import BatchStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.outbox import Outbox
from batchord.producer import Batch
from tests.chains_for_tests.reports import note
from tests.conftest import Deploy
from tests.support.crew import Crew
from tests.support.harness import CHAINS, Deployment, lines_of, refused, wait_until

pytestmark = pytest.mark.timeout(60)

#: A queue that no worker of ours consumes.
ELSEWHERE = "reports"
WITH_TASK = {
    "BATCHORD_CHAINS": f"{CHAINS},tests.chains_for_tests.journal,tests.chains_for_tests.reports"
}


@pytest.fixture(autouse=True)
def _chains() -> None:
    for name in ("echo", "work", "may-fail", "nap"):
        register(name, _same, replace=True)


def _same(value: Any) -> Any:
    return value


@pytest.fixture
def quick(deploy: Deploy) -> Deployment:
    return deploy(lease=1.0, sweep_interval=0.2)


@pytest.fixture
def waiting(deployment: Deployment) -> Iterator[Deployment]:
    """A deployment without workers; what is published to other queues stays there."""
    yield deployment
    deployment.redis.delete(ELSEWHERE, f"{ELSEWHERE}\x06\x166")


def published(deployment: Deployment, queue: str = ELSEWHERE) -> list[tuple[Any, Any]]:
    """Headers and body of the messages that wait in a queue."""
    found = []
    for text in deployment.redis.lrange(queue, 0, -1):
        message = json.loads(text)
        found.append((message["headers"], json.loads(base64.b64decode(message["body"]))))
    return found


def owed(deployment: Deployment) -> list[str]:
    """Return what the ends of batches still owe."""
    members: list[str] = deployment.redis.zrange("batchord:outbox-due", 0, -1)
    return members


def test_it_is_called_with_the_batch_before_its_own_arguments(
    quick: Deployment, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    quick.start_worker(env=WITH_TASK)
    # Items that fail make no difference: this is a batch's end.
    inputs = [{"value": 1}, {"value": 2, "fail": "chain"}]
    batch = quick.client.submit("may-fail", inputs, on_complete=note.s(str(journal), word="done"))
    batch.wait(20)
    wait_until(lambda: lines_of(journal), what="it is called")
    wait_until(lambda: not owed(quick), what="nothing is owed any more")
    assert lines_of(journal) == [f"{batch.id} {batch.id}:on-complete done"]


def test_it_runs_on_the_workers_of_another_celery_app(quick: Deployment, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    theirs = quick.start(
        [
            *("celery", "-A", "tests.chains_for_tests.reports", "worker", "-Q", ELSEWHERE),
            *("-P", "solo", "-l", "INFO", "--without-gossip", "--without-mingle"),
        ],
        "theirs",
        env={"REPORTS_BROKER": quick.url},
    )
    quick.start_worker()
    batch = quick.client.submit("echo", [1], on_complete=note.s(str(journal)).set(queue=ELSEWHERE))
    wait_until(lambda: lines_of(journal), what="it is called")
    assert lines_of(journal) == [f"{batch.id} {batch.id}:on-complete"]
    assert "reports.note" in theirs.log


def test_a_batch_that_is_cancelled_calls_it_too(waiting: Deployment) -> None:
    batch = waiting.client.submit(
        "echo", [1, 2], on_complete=note.s("path").set(queue=ELSEWHERE, countdown=60, expires=600)
    )
    assert published(waiting) == []
    assert batch.cancel() is BatchStatus.CANCELLED
    [(headers, (args, kwargs, more))] = published(waiting)
    assert (headers["task"], headers["id"]) == ("reports.note", f"{batch.id}:on-complete")
    assert (args, kwargs, more["callbacks"]) == ([batch.id, "path"], {}, None)
    assert headers["eta"] is not None
    assert headers["expires"] is not None
    # What makes it once travels no further than to the queue.
    assert "batchord_once" not in headers


def test_what_it_links_goes_with_it(waiting: Deployment) -> None:
    signature = note.s("path").set(queue=ELSEWHERE, priority=7)
    signature.link(note.s("then"))
    waiting.client.submit("echo", [1], on_complete=signature).cancel()
    [(_, (_, _, more))] = published(waiting, f"{ELSEWHERE}\x06\x166")
    assert [each["args"] for each in more["callbacks"]] == [["then"]]


def test_an_immutable_signature_is_called_as_it_is(waiting: Deployment) -> None:
    waiting.client.submit("echo", [1], on_complete=note.si("path").set(queue=ELSEWHERE)).cancel()
    [(_, (args, _, _))] = published(waiting)
    assert args == ["path"]


def test_many_who_publish_at_once_publish_once(waiting: Deployment) -> None:
    batch = committed(waiting)
    app, store = create_app(waiting.settings), BatchStore(waiting.settings)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: publish_callback(app, store, batch.id), range(64)))
    assert len(published(waiting)) == 1
    assert f"{batch.id} on_complete" not in owed(waiting)


def committed(deployment: Deployment) -> Batch:
    """A batch that has ended, by someone who died before it published what that calls."""
    batch = deployment.client.submit("echo", [1], on_complete=note.s("path").set(queue=ELSEWHERE))
    store = BatchStore(deployment.settings)
    key = store.keys.batch(batch.id).outbox
    signature = deployment.redis.hget(key, "on_complete")
    # Ended without it; then as the commit and no more would have left it.
    deployment.redis.hdel(key, "on_complete")
    batch.cancel()
    assert published(deployment) == []
    deployment.redis.hset(key, "on_complete", signature)
    deployment.redis.zadd("batchord:outbox-due", {f"{batch.id} on_complete": 0})
    return batch


@pytest.mark.parametrize(
    ("point", "pool"),
    [("before-commit", "asyncio"), ("after-commit", "asyncio"), ("after-commit", "prefork")],
)
def test_a_worker_that_is_killed_around_the_commit_calls_it_once(
    quick: Deployment, tmp_path: Path, point: str, pool: str
) -> None:
    journal, mark = tmp_path / "journal", tmp_path / "crashed"
    env = {**WITH_TASK, VARIABLE: f"{point}:{mark}"}
    signature = note.s(str(journal))
    with Crew(quick, pool=pool, env=env) as crew:
        wait_until(
            lambda: quick.redis.sismember("batchord:tasks", "reports.note"), what="it is known"
        )
        batches = [quick.client.submit("echo", range(5), on_complete=signature) for _ in range(3)]
        for batch in batches:
            batch.wait(40)
        wait_until(lambda: len(lines_of(journal)) >= 3, what="all are called", timeout=40)
        wait_until(lambda: not owed(quick), what="nothing is owed any more")
        assert mark.exists()
        # Of a pool's children one dies, and the main process makes another.
        assert crew.replaced >= (pool == "asyncio")
    called = [line.split()[0] for line in lines_of(journal)]
    assert sorted(called) == sorted(batch.id for batch in batches)


def test_a_second_end_after_a_retry_calls_it_no_more(quick: Deployment, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    quick.start_worker(env=WITH_TASK)
    inputs = [{"value": 1, "fail": "chain"}]
    batch = quick.client.submit("may-fail", inputs, on_complete=note.s(str(journal)))
    batch.wait(20)
    wait_until(lambda: lines_of(journal), what="it is called")
    assert batch.retry_failed() == 1
    batch.wait(20)
    wait_until(lambda: not owed(quick), what="nothing is owed any more")
    assert len(lines_of(journal)) == 1


def test_a_purged_batch_owes_nothing(quick: Deployment) -> None:
    batch = committed(quick)
    assert quick.client.purge(batch.id)
    assert Outbox(BatchStore(quick.settings)).callback(batch.id) is None
    quick.start_worker()
    wait_until(lambda: not owed(quick), what="the index forgets it")
    assert published(quick) == []


def test_under_a_known_key_the_first_callback_counts(waiting: Deployment) -> None:
    first, second = (note.s(path).set(queue=ELSEWHERE) for path in ("first", "second"))
    batch = waiting.client.submit("echo", [1], idempotency_key="key", on_complete=first)
    waiting.client.submit("echo", [1], idempotency_key="key", on_complete=second)
    batch.cancel()
    [(_, (args, _, _))] = published(waiting)
    assert args == [batch.id, "first"]


def bad_signatures() -> dict[str, Any]:
    """Objects that are no signature to be published later, by any process."""
    one = note.s("path")
    return {
        "a name": "reports.note",
        "a function": note,
        "nothing": {},
        "no task": {"task": ""},
        "a chain": chain(one, one),
        "a group": group(one, one),
        "a chord": chord([one], one),
        "an object": note.s(object()),
        "bytes": note.s(b"bytes"),
        "NaN": note.s(float("nan")),
        "a deep one": note.s(json.loads("[" * 200 + "]" * 200)),
        "a large one": note.s("x" * MOST_BYTES),
        "a serializer": one.clone().set(serializer="pickle"),
        "an exchange": one.clone().set(exchange="other"),
        "a task id": one.clone().set(task_id="mine"),
        "headers": one.clone().set(headers={"batchord_once": ["a", "b", "c"]}),
        "a priority": one.clone().set(priority=10),
        "a queue": one.clone().set(queue=7),
        "a countdown": one.clone().set(countdown="soon"),
        "arguments": {"task": "reports.note", "args": "text"},
        "no queue, and a task that no worker has": one,
        "our queue, and a task that no worker has": one.clone().set(queue="batchord.1"),
    }


@pytest.mark.parametrize("name", bad_signatures())
def test_what_cannot_be_called_is_refused_before_anything_is_written(
    traceless: Deployment, name: str
) -> None:
    message = refused(traceless, "echo", [1], on_complete=bad_signatures()[name])
    assert message.startswith("on_complete: ")
    assert "x" * 100 not in message
