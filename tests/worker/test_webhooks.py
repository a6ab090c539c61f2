"""Webhooks reach a real receiver, signed, as often as they may and no oftener."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from batchord.chains import register
from batchord.ledger.core.failpoints import VARIABLE
from batchord.ledger.core.message_ids import new_batch_id
from batchord.ledger.models import BatchStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.crew import Crew
from tests.support.harness import Deployment, wait_until
from tests.support.webhook_receiver import SECRET, Answer, Received, Receiver

pytestmark = pytest.mark.timeout(60)

WORD = "canary7f3a"
TRIES = 3
Env = dict[str, str]


@pytest.fixture(autouse=True)
def _chains() -> None:
    for name in ("echo", "reveal", "may-fail", "nap"):
        register(name, _same, replace=True)


def _same(value: Any) -> Any:
    return value


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


@pytest.fixture(scope="module")
def receiver(authority: trustme.CA) -> Iterator[Receiver]:
    with Receiver(authority) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def env(receiver: Receiver, ca_file: Path) -> Env:
    """Settings of an operator, where the workers are; and for the tests, loopback."""
    return settings_for(receiver, ca_file)


def settings_for(receiver: Receiver, ca_file: Path, **more: str) -> Env:
    named = {
        "URL": receiver.url(f"deployment?token={WORD}"),
        "SECRET": SECRET,
        "HOSTS": receiver.place,
        "TRIES": str(TRIES),
        "BACKOFF": "0.05",
        "TIMEOUT": "5",
        "ALLOW_LOOPBACK": "true",
        **more,
    }
    # Python looks there for the authorities that it trusts.
    return {f"BATCHORD_WEBHOOK_{name}": value for name, value in named.items()} | {
        "SSL_CERT_FILE": str(ca_file)
    }


@pytest.fixture(scope="module")
def told(deploy_for_module: Deploy, receiver: Receiver, env: Env) -> Deployment:
    """A deployment with a worker that sends webhooks."""
    deployment = deploy_for_module(sweep_interval=0.1, webhook_hosts=(receiver.place,))
    deployment.start_worker(env=env, log_level="DEBUG")
    return deployment


Submit = Callable[..., Batch]


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """Where this test has its webhooks sent."""
    return re.sub(r"\W", "-", request.node.name)


@pytest.fixture
def submit(told: Deployment, receiver: Receiver, path: str) -> Submit:
    def submit(chain: str, inputs: list[Any], **options: Any) -> Batch:
        return told.client.submit(chain, inputs, webhook=receiver.url(path), **options)

    return submit


def requests(receiver: Receiver, path: str, count: int) -> list[Received]:
    """Wait for this many requests, and return them."""
    wait_until(lambda: len(receiver.received[path]) >= count, what=f"{count} requests come")
    return receiver.received[path]


def all_told(deployment: Deployment) -> None:
    """Wait until nothing is owed any more."""
    wait_until(lambda: not deployment.redis.zcard("batchord:outbox-due"), what="nothing is owed")


def test_the_end_of_a_batch_is_told_signed_and_without_payloads(
    told: Deployment, receiver: Receiver
) -> None:
    path = f"deployment?token={WORD}"
    batch = told.client.submit(
        "reveal",
        [f"see{WORD}", f"raise{WORD}"],
        custom_ids=[f"id{WORD}", "b"],
        metadata={"team": "a"},
        idempotency_key=f"key{WORD}",
    )
    record = batch.wait(20)
    [request] = requests(receiver, path, 1)
    said = request.verified()
    assert said["type"] == "batch.completed"
    assert datetime.fromisoformat(said["timestamp"]) == record.ended_at
    assert said["data"]["id"] == batch.id
    assert said["data"]["request_counts"] == record.request_counts.model_dump()
    assert said["data"]["metadata"] == {"team": "a"}
    assert WORD not in request.body
    assert request.id == f"{batch.id}-1"
    assert request.headers["content-type"] == "application/json"
    all_told(told)
    assert len(receiver.received[path]) == 1


def test_the_example_of_the_events_page_reads_it(
    submit: Submit, receiver: Receiver, path: str
) -> None:
    page = (Path(__file__).parents[2] / "docs/events.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shown: dict[str, Any] = {}
    exec(example, shown)
    batch = submit("echo", [1])
    [request] = requests(receiver, path, 1)
    said = shown["receive"](request.body.encode(), request.headers, SECRET)
    assert said == f"{batch.id} batch.completed"
    with pytest.raises(Exception, match="No matching signature"):
        shown["receive"](request.body.encode() + b" ", request.headers, SECRET)


def test_another_secret_does_not_verify(
    submit: Submit, told: Deployment, receiver: Receiver, path: str
) -> None:
    submit("echo", [1])
    [request] = requests(receiver, path, 1)
    with pytest.raises(Exception, match="No matching signature"):
        request.verified("whsec_" + "A" * 40)
    with pytest.raises(Exception, match="No matching signature"):
        request._replace(body=request.body.replace("completed", "cancelled")).verified()


def test_cancelled_and_expired_are_told_as_such(
    submit: Submit, told: Deployment, receiver: Receiver, path: str
) -> None:
    nap = [{"seconds": 30, "value": 1}]
    ends = {
        submit("nap", nap).id: "batch.cancelled",
        submit("nap", nap, completion_window=1).id: "batch.expired",
    }
    told.client.retrieve(next(iter(ends))).cancel()
    said = [request.verified() for request in requests(receiver, path, 2)]
    assert {each["data"]["id"]: each["type"] for each in said} == ends


def test_a_failed_try_is_made_again_under_the_same_id(
    submit: Submit, told: Deployment, receiver: Receiver, path: str
) -> None:
    receiver.answer(path, Answer(503), Answer(500))
    submit("echo", [1])
    three = requests(receiver, path, 3)
    assert len({request.id for request in three}) == 1
    assert len({json.dumps(request.verified()) for request in three}) == 1
    all_told(told)
    assert len(three) == 3


def test_there_are_so_many_tries_and_no_more(
    submit: Submit, told: Deployment, receiver: Receiver, path: str
) -> None:
    receiver.answer(path, always=Answer(500))
    batch = submit("echo", [1])
    all_told_after(batch, told)
    assert len(receiver.received[path]) == TRIES
    log = told.processes[0].log
    assert f"webhook given up batch={batch.id} end=1 try={TRIES}: answered with 500" in log
    assert told.redis.hgetall(f"batchord:{{{batch.id}}}:outbox") == {"webhook": receiver.url(path)}


def all_told_after(batch: Batch, deployment: Deployment) -> None:
    batch.wait(20)
    all_told(deployment)


def test_who_is_gone_is_not_tried_again(
    submit: Submit, told: Deployment, receiver: Receiver, path: str
) -> None:
    receiver.answer(path, always=Answer(410))
    all_told_after(submit("echo", [1]), told)
    assert len(receiver.received[path]) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(
    submit: Submit, told: Deployment, receiver: Receiver, path: str, status: int
) -> None:
    # To itself, which is allowed, so that nothing but the redirect can be what is refused.
    to = (("Location", receiver.url(f"{path}-elsewhere")),)
    receiver.answer(path, Answer(status, to))
    all_told_after(submit("echo", [1]), told)
    assert len(receiver.received[path]) == 2
    assert receiver.received[f"{path}-elsewhere"] == []


@pytest.mark.parametrize("never", ["body", "headers"])
def test_an_answer_without_end_holds_nothing_up(
    submit: Submit, told: Deployment, receiver: Receiver, path: str, never: str
) -> None:
    receiver.answer(path, Answer(200, never=never))
    all_told_after(submit("echo", [1]), told)
    # The status was heard, and that is all that is asked for; headers without end say nothing.
    assert len(receiver.received[path]) == (1 if never == "body" else 2)


def test_a_second_end_is_told_as_another_one(
    submit: Submit, told: Deployment, receiver: Receiver, path: str
) -> None:
    batch = submit("may-fail", [{"value": 1, "fail": "chain"}])
    batch.wait(20)
    requests(receiver, path, 1)
    # No item has such an error, none runs again: that is no other end.
    assert batch.retry_failed(codes=["other"]) == 0
    assert batch.wait(20).status is BatchStatus.COMPLETED
    assert batch.retry_failed() == 1
    second = requests(receiver, path, 2)[1]
    all_told_after(batch, told)
    assert [request.id for request in receiver.received[path]] == [f"{batch.id}-1", f"{batch.id}-2"]
    assert second.verified()["data"]["status"] == "completed"


def test_neither_secret_nor_token_nor_payload_is_in_a_log(
    told: Deployment, receiver: Receiver
) -> None:
    receiver.answer(f"deployment?token={WORD}", Answer(500))
    batch = told.client.submit("reveal", [f"see{WORD}"], metadata={"team": WORD})
    all_told_after(batch, told)
    log = told.processes[0].log
    assert "webhook sent" in log
    assert "webhook failed" in log
    assert SECRET not in log
    assert SECRET.removeprefix("whsec_") not in log
    assert WORD not in log
    assert "https://" not in log


@pytest.mark.parametrize("point", ["before-webhook", "after-webhook"])
def test_a_worker_that_is_killed_around_a_try_is_followed_by_another(
    deploy: Deploy, receiver: Receiver, ca_file: Path, tmp_path: Path, path: str, point: str
) -> None:
    deployment = deploy(sweep_interval=0.1, lease=1.0)
    mark = tmp_path / "crashed"
    env = settings_for(receiver, ca_file, URL=receiver.url(path), TIMEOUT="0.5")
    with Crew(deployment, env={**env, VARIABLE: f"{point}:{mark}", "BATCHORD_CHAINS": CHAINS}):
        batch = deployment.client.submit("echo", [1])
        wait_until(mark.exists, what="it is killed")
        # What it held is anyone's again once it would be over (`dispatcher.MARGIN`), or now.
        member = f"{batch.id} 1"
        assert deployment.redis.zscore("batchord:outbox-due", member) is not None
        deployment.redis.zadd("batchord:outbox-due", {member: 0})
        all_told(deployment)
    got = receiver.received[path]
    assert len(got) == (1 if point == "before-webhook" else 2)
    assert {request.id for request in got} == {f"{batch.id}-1"}
    assert all(request.verified()["type"] == "batch.completed" for request in got)


CHAINS = "tests.chains_for_tests.basic"


def test_tries_and_when_they_are_due_outlive_the_workers(
    deploy: Deploy, receiver: Receiver, ca_file: Path, path: str
) -> None:
    deployment = deploy(sweep_interval=0.1)
    receiver.answer(path, always=Answer(500))
    # The second try is due in an hour, give or take.
    url = receiver.url(path)
    first = deployment.start_worker(env=settings_for(receiver, ca_file, URL=url, BACKOFF="3600"))
    batch = deployment.client.submit("echo", [1])
    member = f"{batch.id} 1"
    requests(receiver, path, 1)
    wait_until(lambda: "webhook failed" in first.log, what="the try has failed")
    seconds, _ = deployment.redis.time()

    def due_in() -> float:
        due = deployment.redis.zscore("batchord:outbox-due", member)
        return float(due / 1000 - seconds)

    wait_until(lambda: due_in() > 3000, what="it is put off")
    first.kill()
    deployment.start_worker(env=settings_for(receiver, ca_file, URL=url))
    assert due_in() > 3000
    assert len(receiver.received[path]) == 1
    deployment.redis.zadd("batchord:outbox-due", {member: 0})
    all_told(deployment)
    # Those of the dead worker count.
    assert len(receiver.received[path]) == TRIES


def test_a_worker_that_dies_in_the_last_try_is_told_of(
    deploy: Deploy, receiver: Receiver, ca_file: Path, tmp_path: Path, path: str
) -> None:
    deployment = deploy(sweep_interval=0.1)
    mark = tmp_path / "crashed"
    env = settings_for(receiver, ca_file, URL=receiver.url(path), TRIES="1")
    first = deployment.start_worker(env={**env, VARIABLE: f"after-webhook:{mark}"})
    batch = deployment.client.submit("echo", [1])
    assert first.wait(20) == -9
    second = deployment.start_worker(env=env)
    deployment.redis.zadd("batchord:outbox-due", {f"{batch.id} 1": 0})
    all_told(deployment)
    wait_until(lambda: f"webhook given up batch={batch.id} end=1" in second.log, what="it is said")
    assert len(receiver.received[path]) == 1


def test_a_receiver_that_is_slow_holds_up_neither_batches_nor_the_sweep(
    deploy: Deploy, receiver: Receiver, ca_file: Path, path: str
) -> None:
    deployment = deploy(sweep_interval=0.1, submit_timeout=0.3)
    hold = threading.Event()
    receiver.answer(path, Answer(hold=hold))
    deployment.start_worker(
        env=settings_for(receiver, ca_file, URL=receiver.url(path), TIMEOUT="30")
    )
    try:
        deployment.client.submit("echo", [1]).wait(20)
        requests(receiver, path, 1)
        # The sweep takes back what a dead producer has begun.
        begun = new_batch_id()
        store = BatchStore(deployment.settings)
        assert store.open(begun, {"chain": "echo"}, key=None)
        wait_until(lambda: not deployment.redis.exists(store.keys.batch(begun).meta), what="swept")
        assert deployment.client.submit("echo", [2]).outputs() == [2]
        assert deployment.redis.zcard("batchord:outbox-due") >= 1
    finally:
        hold.set()
    all_told(deployment)


def test_nothing_is_sent_until_it_is_configured(deploy: Deploy, receiver: Receiver) -> None:
    deployment = deploy(sweep_interval=0.1)
    worker = deployment.start_worker()
    batch = deployment.client.submit("echo", [1])
    all_told_after(batch, deployment)
    assert "webhook" not in worker.log
    assert deployment.redis.hgetall(f"batchord:{{{batch.id}}}:outbox") == {}
