"""Inputs, outputs, errors and keys are seen in the ledger, and nowhere else."""

import base64
import json
import re
import secrets
import threading
from collections.abc import Iterator

import pytest
import redis

from batchord.chains import register
from batchord.ledger.models import BatchStatus
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.flower_server import Flower
from tests.support.harness import Deployment, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(90)

WORD = secrets.token_hex(8).replace("e", "x") + "aZ"  # whose case and order can be told apart
#: What each place holds, by the chain `reveal`: the input, the output, the error's message.
CANARIES = {
    "input": f"see{WORD}",
    "output": f"see{WORD}"[::-1],
    "failed input": f"raise{WORD}",
    "error": f"raise{WORD}".swapcase(),
    "key": f"sk-{secrets.token_hex(16)}",
    "custom_id": f"id{WORD}",
    "metadata": f"meta{WORD}",
    "idempotency_key": f"idem{WORD}",
}
_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}")


def found_in(text: str) -> set[str]:
    """Which canaries the text holds, also inside of base64 (kombu's bodies) and JSON escapes."""
    parts = [text]
    for blob in _BASE64.findall(text):
        whole = blob[: len(blob) // 4 * 4]
        parts.append(base64.b64decode(whole).decode("utf-8", "replace"))
    everything = "\n".join(parts)
    return {name for name, canary in CANARIES.items() if canary in everything}


class Monitor:
    """Every command that the server was sent meanwhile, in one database."""

    def __init__(self, deployment: Deployment) -> None:
        self.commands: list[str] = []
        self._database = int(deployment.url.rsplit("/", 1)[1])
        self._client = redis.Redis.from_url(deployment.url, decode_responses=True)
        self._stop = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> "Monitor":
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with redis.Redis(connection_pool=self._client.connection_pool) as last:
            last.ping()  # wakes the listener
        self._thread.join()
        self._client.close()

    def _listen(self) -> None:
        with self._client.monitor() as monitor:
            self._listening.set()
            while not self._stop.is_set():
                command = monitor.next_command()
                if command["db"] == self._database:
                    self.commands.append(str(command["command"]))


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer(api_key=CANARIES["key"]) as server:
        yield server


@pytest.fixture(scope="module")
def watched(deploy_for_module: Deploy, provider: OpenAIServer) -> tuple[Deployment, Flower]:
    """A worker that logs all it can, and a Flower that sees it from the start."""
    deployment = deploy_for_module(task_events=True)
    flower = Flower(deployment)
    worker = deployment.start_worker(
        log_level="DEBUG",
        env={"OPENAI_API_KEY": CANARIES["key"], "OPENAI_BASE_URL": provider.base_url},
        wait=False,
    )
    deployment.wait_for_worker(worker)
    flower.wait()
    return deployment, flower


Ran = tuple[list[Batch], list[str]]


@pytest.fixture(scope="module")
def ran(watched: tuple[Deployment, Flower], provider: OpenAIServer) -> Ran:
    """Batches that carried each canary, and all commands that the server saw meanwhile."""
    deployment, flower = watched
    provider.fail_next(400, match=CANARIES["failed input"])
    with Monitor(deployment) as monitor:
        batches = [
            deployment.client.submit(
                chain,
                [CANARIES["input"], CANARIES["failed input"], {"word": CANARIES["input"]}],
                custom_ids=[CANARIES["custom_id"], "b", "c"],
                metadata={"team": CANARIES["metadata"]},
                idempotency_key=chain + CANARIES["idempotency_key"],
            )
            for chain in ("reveal", "ask")
        ]
        for batch in batches:
            record = batch.wait(30)
            assert record.status is BatchStatus.COMPLETED
            assert 0 < record.request_counts.failed < 3
        wait_until(lambda: all(ended(flower, batch) for batch in batches), what="Flower saw it all")
    return batches, monitor.commands


def ended(flower: Flower, batch: Batch) -> bool:
    """Whether Flower shows the three items and the gather as ended."""
    tasks = flower.tasks(search=f"kwargs:batch_id={batch.id}").values()
    return [task["state"] in ("SUCCESS", "FAILURE") for task in tasks] == [True] * 4


def test_the_ledger_holds_them_all(watched: tuple[Deployment, Flower], ran: Ran) -> None:
    deployment, _ = watched
    items = list(ran[0][0].results())
    assert items[0].output == CANARIES["output"]
    assert items[1].error is not None
    assert items[1].error.message == CANARIES["error"]
    ledger = [dump(deployment, key) for key in deployment.redis.scan_iter("batchord:{*")]
    assert found_in("\n".join(ledger)) == set(CANARIES) - {"key"}


def test_nothing_but_the_ledgers_own_keys_holds_any(
    watched: tuple[Deployment, Flower], ran: Ran
) -> None:
    deployment, _ = watched
    others = [key for key in deployment.redis.scan_iter() if not key.startswith("batchord:{")]
    assert others
    for key in others:
        assert found_in(f"{key} {dump(deployment, key)}") == set(), key


def dump(deployment: Deployment, key: str) -> str:
    """All that a key holds."""
    server = deployment.redis
    reads = {
        "string": server.get,
        "hash": server.hgetall,
        "list": lambda key: server.lrange(key, 0, -1),
        "set": server.smembers,
        "zset": lambda key: server.zrange(key, 0, -1),
        "stream": server.xrange,
    }
    return str(reads[server.type(key)](key))


def test_no_message_no_event_and_no_chord_part_ever_held_any(ran: Ran) -> None:
    _, commands = ran
    ledger = [command for command in commands if "batchord:{batch_" in command]
    others = [command for command in commands if "batchord:{batch_" not in command]
    # What the monitor can see: the canaries on their way into the ledger, and all of Celery.
    assert found_in("\n".join(ledger)) == set(CANARIES) - {"key"}
    for kind in ("LPUSH batchord", "PUBLISH /", "shard-0", "BRPOP", "unacked"):
        assert any(kind in command for command in others), kind
    for command in others:
        assert found_in(command) == set(), command


def test_a_message_that_waits_holds_ids_only(deployment: Deployment) -> None:
    register("reveal", str, replace=True)
    batch = deployment.client.submit("reveal", [CANARIES["input"]])
    [message] = deployment.waiting()
    body = base64.b64decode(json.loads(message)["body"])
    args, kwargs, _ = json.loads(body)
    assert (args, kwargs) == ([], {"batch_id": batch.id, "shard": 0, "index": 0, "count": 1})
    assert found_in(message) == set()


def test_no_log_holds_any_even_at_debug(watched: tuple[Deployment, Flower], ran: Ran) -> None:
    deployment, flower = watched
    worker = deployment.processes[1]
    assert "DEBUG" in worker.log
    for process in (worker, flower.process):
        for line in process.log.splitlines():
            assert found_in(line) == set(), line


def test_no_page_of_flower_holds_any(watched: tuple[Deployment, Flower], ran: Ran) -> None:
    _, flower = watched
    tasks = flower.tasks()
    assert len(tasks) >= 8
    [worker] = {task["worker"] for task in tasks.values()}
    columns = "name,uuid,state,args,kwargs,result,received,started,runtime,worker"
    pages = ["/", "/tasks", "/broker", "/metrics", f"/worker/{worker}", "/api/workers?refresh=1"]
    pages += ["/api/tasks", f"/tasks/datatable?draw=1&start=0&length=100&search[value]=&{columns}"]
    pages += [f"{page}/{task}" for task in tasks for page in ("/task", "/api/task/info")]
    seen = 0
    for page in pages:
        if flower.status(page) == 200:
            seen += 1
            assert found_in(flower.get(page)) == set(), page
    assert seen >= len(pages) - 1, "pages are missing"
    assert any(task["state"] == "FAILURE" for task in tasks.values())
