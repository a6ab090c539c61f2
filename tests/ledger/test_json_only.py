"""Nothing but JSON of ours is taken from the queues: all else is dropped, and harms nobody."""

import base64
import json
import pickle
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kombu.connection import Connection
from kombu.entity import Exchange
from kombu.messaging import Producer

from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.core.message_ids import GATHER, PRIORITY_SEPARATOR, RUN_ITEMS
from batchord.ledger.needs import FORMAT
from tests.conftest import Deploy
from tests.support.harness import Deployment, Process, wait_until

pytestmark = pytest.mark.timeout(60)

UNKNOWN = "batch_" + "0" * 24
#: Nested deeper than Python's reader of JSON goes.
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def hosts(deploy_for_module: Deploy) -> Deployment:
    """A deployment with a single worker, so that who harms it harms all."""
    deployment = deploy_for_module(sweep_interval=0.5, lease=2, visibility_timeout=10)
    deployment.start_worker(concurrency=4)
    assert deployment.client.submit("echo", [1]).outputs() == [1]  # declares the queues
    wait_until(lambda: not deployment.redis.exists("batchord:outbox-due"), what="it owes nothing")
    wait_until(lambda: deployment.client.fleet().lags, what="it tells of its loop")
    return deployment


@pytest.fixture
def worker(hosts: Deployment) -> Iterator[Process]:
    """The one worker, which must have dropped all, written nothing and still take items."""
    [worker] = hosts.processes
    before = keys(hosts)
    yield worker
    wait_until(
        lambda: hosts.queued() == 0 and not hosts.redis.exists("unacked", "unacked_index"),
        what="everything is taken and dropped",
    )
    assert keys(hosts) == before
    # More than it takes at a time: a message that keeps its place would be felt.
    batch = hosts.client.submit("echo", range(50), items_per_task=1)
    wait_until(lambda: batch.record().status.ended, what="the next batch completes")
    wait_until(lambda: not hosts.redis.exists("batchord:outbox-due"), what="and owes nothing")
    assert batch.outputs() == list(range(50))
    assert worker.alive
    assert worker.log.count(" ready.") == 1


def keys(hosts: Deployment) -> set[str]:
    """The keys that are not of the batches that have run."""
    found = {key for key in hosts.redis.scan_iter(count=1000) if "{batch_" not in key}
    return (
        found
        - {"unacked", "unacked_index", "unacked_mutex"}
        - {"batchord:active", f"batchord:sweep:{FORMAT}", "batchord:repairs", "batchord:totals"}
    )


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, evidence: Path) -> None:
        self._evidence = evidence

    def __reduce__(self) -> Any:
        return Path.touch, (self._evidence,)


def envelope(body: str | bytes, content_type: str = "application/json", **parts: Any) -> Any:
    """A message of ours as it lies in Redis; `parts` replace what is said of it."""
    task_id = str(uuid.uuid4())
    if isinstance(body, str):
        body = body.encode()
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": {"lang": "py", "task": RUN_ITEMS, "id": task_id, "root_id": task_id},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "batchord"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    } | parts


def task(kwargs: Any, name: str = RUN_ITEMS, **headers: Any) -> Any:
    """A message that runs a task of ours with these arguments."""
    message = envelope(json.dumps([[], kwargs, {}]))
    message["headers"] |= {"task": name} | headers
    return message


def but(place: str, value: Any) -> str:
    """A message of ours whose one part is something else."""
    message = task({"batch_id": UNKNOWN, "shard": 0, "index": 0, "count": 1})
    *path, last = place.split(".")
    part = message
    for name in path:
        part = part[name]
    part[last] = value
    return json.dumps(message)


def push(hosts: Deployment, *messages: str | bytes) -> None:
    """Put messages into two lists of each queue, each alone and then all together."""
    for queue in hosts.settings.queues:
        for name in (queue, f"{queue}{PRIORITY_SEPARATOR}9"):
            for message in messages:
                hosts.redis.lpush(name, message)
            hosts.redis.lpush(name, *messages)


#: By content type: what a body looks like that touches a file once it is loaded.
BOMBS: dict[str, Callable[[Path], bytes]] = {
    "application/x-python-serialize": lambda path: pickle.dumps([[], {"index": Bomb(path)}, {}]),
    "application/x-yaml": lambda path: (
        f"[[], {{index: !!python/object/apply:os.mkdir ['{path}']}}, {{}}]".encode()
    ),
    "application/x-msgpack": lambda path: (
        b"\x93\x90\x81\xa5index\x01\x80"
    ),  # [[], {"index": 1}, {}]
    "application/x-of-nobody": lambda path: b"whatever",
    # A body that says that it is JSON, and is not.
    "application/json": lambda path: pickle.dumps(Bomb(path)),
}


@pytest.mark.parametrize("content_type", BOMBS)
def test_a_body_that_is_no_json_is_refused_and_nothing_of_it_runs(
    hosts: Deployment, worker: Process, tmp_path: Path, content_type: str
) -> None:
    evidence = tmp_path / "ran"
    body = BOMBS[content_type](evidence)
    offset = len(worker.log)
    push(hosts, json.dumps(envelope(body, content_type)))
    # As an application would, with kombu's own producer.
    with Connection(hosts.url) as connection, connection.channel() as channel:
        for queue in hosts.settings.queues:
            Producer(channel, Exchange("")).publish(
                body,
                routing_key=queue,
                content_type=content_type,
                content_encoding="binary",
                headers=task({})["headers"],
            )
    wait_until(lambda: hosts.queued() == 0, what="they are taken")
    says_json = content_type == "application/json"
    refusal = "Can't decode message body" if says_json else "Received invalid task message"
    count = 5 * len(hosts.settings.queues)
    wait_until(lambda: worker.log[offset:].count(refusal) == count, what="each of them is refused")
    assert not evidence.exists()


def test_the_bombs_go_off_where_they_are_loaded(tmp_path: Path) -> None:
    pickle.loads(BOMBS["application/x-python-serialize"](tmp_path / "pickle"))
    yaml.unsafe_load(BOMBS["application/x-yaml"](tmp_path / "yaml"))
    assert {path.name for path in tmp_path.iterdir()} == {"pickle", "yaml"}


ENTRIES: dict[str, str | bytes] = {
    "text": "no JSON at all",
    "bytes": b"\x80\x04\x95\xff\x00",
    "nothing": "",
    "a pickle": pickle.dumps({"body": "x"}),
    "cut short": json.dumps(task({}))[:-20],
    "not UTF-8": json.dumps(task({})).encode().replace(b"py", b"\xff\xfe"),
    "a control character": json.dumps(task({})).replace("py", "p\x01y"),
    "null": "null",
    "a number": "7",
    "a string": '"batchord.run_items"',
    "a list": "[1, 2, 3]",
    "an empty object": "{}",
    "deep": DEEP,
    "deep body": json.dumps(envelope(DEEP)),
    "deep header": json.dumps(task({})).replace('"py"', "[" * 5000 + "]" * 5000),
    "large": json.dumps(task({"batch_id": "x" * 3_000_000})),
}
PARTS: dict[str, list[Any]] = {
    "body": [None, 7, [], "no base64!", "", base64.b64encode(b"7").decode()],
    "content-type": [None, 7, [], "application/data"],
    "content-encoding": [None, 7, "no-such-codec"],
    "headers": [None, 7, "x", [], {}],
    "headers.task": [None, 7, [], {}, "os.system", "celery.backend_cleanup"],
    "headers.id": [None, 7, [], {}, "x\n{y}"],
    "headers.slots": [None, "x", [], -(10**6), 10**400, 0.5],
    "headers.timelimit": ["x", [1], {}],
    "headers.eta": ["yesterday", 7],
    "headers.expires": ["yesterday", []],
    "headers.retries": ["x"],
    "properties": [None, 7, [], {}],
    "properties.delivery_tag": [None, 7, [], {}],
    "properties.delivery_info": [None, 7, {}, {"exchange": None, "routing_key": []}],
    "properties.body_encoding": [7, "rot13"],
    "properties.priority": ["x", []],
}
PAYLOADS: list[Any] = [7, "x", None, [], [1], [1, 2, 3], [{}, [], []], [[], {}, [1]], {"args": 1}]
GROUPS: dict[str, list[str | bytes]] = {
    "text": [*ENTRIES.values()],
    "body": [but(place, value) for place in PARTS if place[0] in "bc" for value in PARTS[place]],
    "headers": [but(place, value) for place in PARTS if place[0] == "h" for value in PARTS[place]],
    "properties": [
        but(place, value) for place in PARTS if place[0] == "p" for value in PARTS[place]
    ],
    "payload": [json.dumps(envelope(json.dumps(payload))) for payload in PAYLOADS],
}


@pytest.mark.parametrize("group", GROUPS)
def test_an_entry_that_is_no_message_is_dropped(
    hosts: Deployment, worker: Process, group: str
) -> None:
    push(hosts, *GROUPS[group])


def test_a_note_of_no_message_is_not_given_back_for_ever(
    hosts: Deployment, worker: Process
) -> None:
    for number, name in enumerate(ENTRIES):
        hosts.redis.hset("unacked", f"hand-made-{number}", ENTRIES[name])
        hosts.redis.zadd("unacked_index", {f"hand-made-{number}": 1})


def test_a_control_message_that_is_no_json_is_ignored(
    hosts: Deployment, worker: Process, tmp_path: Path
) -> None:
    evidence = tmp_path / "ran"
    app = create_app(hosts.settings)
    topic = f"/{hosts.url.rsplit('/', 1)[1]}.celery.pidbox"
    for content_type, bomb in BOMBS.items():
        message = envelope(bomb(evidence), content_type)
        assert hosts.redis.publish(topic, json.dumps(message)) >= 1
    for entry in [*GROUPS["text"], *GROUPS["properties"], *GROUPS["payload"]]:
        hosts.redis.publish(topic, entry)
    wait_until(lambda: app.control.ping(timeout=0.5, limit=1), what="the worker answers")
    app.close()
    assert not evidence.exists()


def test_arguments_that_we_do_not_publish_are_refused(hosts: Deployment, worker: Process) -> None:
    known = {"batch_id": UNKNOWN, "shard": 0, "index": 0, "count": 1}
    wrong: dict[str, list[Any]] = {
        "batch_id": [
            None,
            7,
            [],
            {},
            "",
            "x",
            "batch_{}",
            UNKNOWN + "\n",
            "{" + UNKNOWN + "}",
            DEEP,
        ],
        "shard": [None, -1, "0", 10**30, 0.5, True, [], "a\nb"],
        "index": [None, -1, "0", 10**30, 0.5, [], {}],
        "count": [None, -1, 0, "1", 10**9, 10**30, 0.5, []],
    }
    for arguments in (
        known,
        {**known, "more": 1},
        {},
        *({key: known[key] for key in known if key != left_out} for left_out in known),
        *({**known, key: value} for key in wrong for value in wrong[key]),
    ):
        push(hosts, json.dumps(task(arguments)))
        for name in ("shard", "batch_id"):
            few = {key: arguments[key] for key in ("batch_id", "shard") if key in arguments}
            push(hosts, json.dumps(task(few | {"shard": few.get(name, 0)}, GATHER)))


def test_a_message_that_names_another_shard_does_not_stop_a_batch(
    hosts: Deployment, worker: Process
) -> None:
    batch = hosts.client.submit("nap", [{"value": i, "seconds": 0.2} for i in range(8)])
    for shard in (1, 7, 2**31 - 1):
        for index in range(8):
            arguments = {"batch_id": batch.id, "shard": shard, "index": index, "count": 8}
            # Not many: each that gets hold of an item costs it an attempt.
            hosts.redis.lpush(hosts.settings.queue, json.dumps(task(arguments)))
    wait_until(lambda: batch.record().status.ended, what="the batch completes")
    assert batch.outputs() == list(range(8))
