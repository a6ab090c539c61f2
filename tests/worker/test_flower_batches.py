"""The Batches tab of a real Flower, over HTTP: what it shows, to whom, and what it does."""

import json
import re
import threading
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from batchord.ledger.models import BatchStatus, PauseReason
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.flower_server import Flower
from tests.support.harness import Deployment, wait_until
from tests.support.valkey import Server

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
#: In an input, an output, an error's message.
CANARY = "canary-of-the-batches-tab"
MARKUP = '"><script>window.hacked = 1</script>'
NOBODY = "batch_" + "0" * 24


@pytest.fixture(scope="module")
def deployment(deploy_for_module: Deploy) -> Deployment:
    return deploy_for_module(alike_limit=0, task_events=True, lease=4)


Flowers = dict[str, Flower]


@pytest.fixture(scope="module")
def flowers(deployment: Deployment) -> Flowers:
    """One as it comes behind a password, one that only reads and shows payloads, an open one."""
    found = {
        "plain": Flower(deployment),
        "reader": Flower(deployment, "--read_only=true", env={"BATCHORD_FLOWER_PAYLOADS": "1"}),
        "open": Flower(deployment, "--url_prefix=watch", login=None),
    }
    worker = deployment.start_worker(wait=False)
    deployment.wait_for_worker(worker)
    for name in ("plain", "reader"):
        found[name].wait()
    wait_until(lambda: found["open"].status("/watch/healthcheck") == 200, what="it answers")
    return found


@pytest.fixture(scope="module")
def flower(flowers: Flowers) -> Flower:
    return flowers["plain"]


@pytest.fixture(scope="module")
def ended(deployment: Deployment, flowers: Flowers) -> Batch:
    """A batch of 40 items, eight of which have failed with two codes."""
    inputs = [{"value": f"{CANARY} {n}", "fail": _fault(n)} for n in range(40)]
    batch = deployment.client.submit(
        "may-fail",
        inputs,
        custom_ids=[f"row-{n}" for n in range(40)],
        metadata={"team": "support", "note": MARKUP},
    )
    assert batch.wait(60).request_counts.failed == 8
    return batch


def _fault(n: int) -> str | None:
    return None if n % 5 else ("bug" if n % 2 else CANARY.upper())


@pytest.fixture
def waiting(deployment: Deployment, flowers: Flowers) -> Iterator[Batch]:
    """A batch that is paused, with nearly all to be done."""
    batch = deployment.client.submit("nap", [{"seconds": 30, "value": n} for n in range(20)])
    batch.pause()
    yield batch
    batch.cancel()  # else it would hold the worker's slots
    batch.wait(30)


def test_the_tab_is_on_every_page_of_flower(flower: Flower) -> None:
    for page in ("/", "/tasks", "/broker", "/batches"):
        assert 'href="/batches"' in flower.get(page), page
    assert 'aria-current="page">Batches' in flower.get("/batches")


def test_the_list_says_how_each_batch_goes(flower: Flower, ended: Batch) -> None:
    found = flower.json("/batches/data")
    row = next(row for row in found["batches"] if row["id"] == ended.id)
    assert (row["chain"], row["status"], row["running"]) == ("may-fail", "completed", 0)
    counts = {"total": 40, "succeeded": 32, "failed": 8, "cancelled": 0, "expired": 0}
    assert row["request_counts"] == counts
    assert row["metadata"] == {"team": "support", "note": MARKUP}
    assert (row["rate"], row["eta"], row["usage"], row["cost_usd"]) == (None, None, None, None)
    assert found["total"] >= found["active"]


def test_a_batch_tells_its_failures_by_code_and_who_they_are(flower: Flower, ended: Batch) -> None:
    batch = flower.json(f"/batch/{ended.id}/data")
    groups = {group["code"]: group for group in batch["failures"]}
    assert {code: group["count"] for code, group in groups.items()} == {
        CANARY.upper(): 4,
        "KeyError": 4,
    }
    first = groups["KeyError"]["first"]
    assert [item["custom_id"] for item in first] == [f"row-{item['index']}" for item in first]
    assert set(first[0]) == {"index", "custom_id", "task"}
    assert sum(slot["succeeded"] for slot in batch["throughput"]) == 32
    assert 0 < batch["latency_p50"] <= batch["latency_p95"]


def test_a_batch_and_its_tasks_are_linked_both_ways(flower: Flower, ended: Batch) -> None:
    def tasks() -> list[str]:
        groups = flower.json(f"/batch/{ended.id}/data")["failures"]
        return [item["task"] for group in groups for item in group["first"] if item["task"]]

    wait_until(lambda: len(tasks()) == 8, what="Flower knows the failed tasks")
    assert f'href="/batch/{ended.id}"' in flower.get(f"/task/{tasks()[0]}")
    search = f"name:batchord.run_items kwargs:batch_id={ended.id} state:FAILURE"
    assert len(flower.tasks(search=search)) == 8
    assert f"kwargs%3Abatch_id%3D{ended.id}" in flower.get(f"/batch/{ended.id}")


def test_batches_are_found_by_status_text_and_id(
    flower: Flower, ended: Batch, waiting: Batch
) -> None:
    def ids(query: str) -> set[str]:
        found = flower.json(f"/api/batches?{query}")
        return {row["id"] for row in found["batches"]}

    assert ids("status=paused") == {waiting.id}
    assert ended.id in ids("status=completed,failed")
    assert ids("text=TEAM%3Dsup") == {ended.id}
    assert ids("text=may-fa&status=completed") == {ended.id}
    assert ids(f"text={waiting.id}") == {waiting.id}
    assert ids("text=nothing-of-that-kind") == set()


def test_pages_of_batches_follow_each_other_and_miss_none(
    deployment: Deployment, flower: Flower
) -> None:
    submitted = [deployment.client.submit("echo", [n], metadata={"many": "1"}) for n in range(7)]
    for one in submitted:
        one.wait(60)
    for query in ("limit=3", "limit=3&text=many%3D1", "limit=3&status=completed"):
        seen: list[str] = []
        after = ""
        while True:
            found = flower.json(f"/api/batches?{query}&after={after}")
            seen += [row["id"] for row in found["batches"]]
            after = found["next"]
            if after is None:
                break
        assert len(seen) == len(set(seen))
        # Of two in one millisecond either may be first.
        assert {one.id for one in submitted} == set(seen[:7])


@pytest.mark.parametrize(
    "path",
    [
        "/batch/{}",
        "/batch/{}/data",
        "/batch/{}/events",
        "/batch/{}/results.jsonl",
        "/api/batches/{}",
        "/api/batches?after={}",
    ],
)
@pytest.mark.parametrize("batch_id", [NOBODY, "nonsense", "%7Bx%7D:meta", "%2e%2e"])
def test_an_unknown_batch_is_not_found(flower: Flower, path: str, batch_id: str) -> None:
    assert flower.status(path.format(batch_id)) == 404


def test_a_damaged_batch_is_named_and_the_others_are_shown(
    flower: Flower, deployment: Deployment, ended: Batch
) -> None:
    # It must not end before it is damaged: those that have ended are not counted.
    damaged = deployment.client.submit("nap", [{"seconds": 100, "value": 1}])
    damaged.pause()
    (meta,) = [key for key in deployment.keys_of(damaged) if key.endswith(":meta")]
    status = deployment.redis.hget(meta, "status")
    deployment.redis.hset(meta, mapping={"status": "hibernating", "metadata": "["})
    for path in (f"/api/batches/{damaged.id}", f"/batch/{damaged.id}/data"):
        answer, text = flower.ask(path)
        assert answer == 500
        assert "cannot be read" in text
    answer, text = flower.ask(f"/api/batches/{damaged.id}/cancel", method="POST")
    assert (answer, "cannot be read" in text) == (500, True)
    for query in ("limit=100", "text=support", "text=may-fail"):
        shown = {each["id"] for each in flower.json(f"/api/batches?{query}")["batches"]}
        assert ended.id in shown
        assert damaged.id not in shown
    assert "batchord_unreadable_batches 1.0" in flower.get("/metrics")
    deployment.redis.hset(meta, mapping={"status": status, "metadata": "{}"})
    damaged.cancel()
    damaged.wait(30)
    assert "batchord_unreadable_batches 0.0" in flower.get("/metrics")


@pytest.mark.parametrize("action", ["cancel", "pause", "resume", "retry"])
@pytest.mark.parametrize("batch_id", [NOBODY, "nonsense"])
def test_nothing_is_done_to_an_unknown_batch(
    flower: Flower, deployment: Deployment, action: str, batch_id: str
) -> None:
    assert flower.ask(f"/api/batches/{batch_id}/{action}", method="POST")[0] == 404
    assert deployment.keys_of(batch_id) == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "status=bad", "status=completed,"]
)
def test_a_query_that_makes_no_sense_is_refused(flower: Flower, query: str) -> None:
    status, text = flower.ask(f"/api/batches?{query}")
    assert status == (200 if query.endswith(",") else 400)
    assert "Traceback" not in text


def test_without_a_login_nothing_is_shown_and_nothing_done(flower: Flower, ended: Batch) -> None:
    paths = ["/batches", "/batches/data", "/api/batches", f"/api/batches/{ended.id}"]
    paths += [f"/batch/{ended.id}{rest}" for rest in ("", "/data", "/events", "/results.jsonl")]
    paths += ["/batches/events", "/api/batches/workers"]
    for login in (None, "watcher:wrong"):
        for path in paths:
            assert flower.status(path, login=login) == 401, path
        status, _ = flower.ask(f"/api/batches/{ended.id}/retry", method="POST", login=login)
        assert status == 401


def test_an_open_flower_shows_pages_and_its_api_does_nothing(
    flowers: Flowers, waiting: Batch
) -> None:
    """As Flower's own API: 401 unless a login is configured. And all of it behind a prefix."""
    open_ = flowers["open"]
    page = open_.get(f"/watch/batch/{waiting.id}", login=None)
    assert f'data-url="/watch/batch/{waiting.id}/data"' in page
    assert "data-allowed" not in page
    assert open_.status("/watch/batches/data", login=None) == 200
    for path in ("/watch/api/batches", f"/watch/api/batches/{waiting.id}"):
        assert open_.status(path, login=None) == 401
    for action in ("cancel", "resume"):
        path = f"/watch/api/batches/{waiting.id}/{action}"
        assert open_.ask(path, method="POST", login=None)[0] == 401
    assert waiting.record().status is BatchStatus.PAUSED


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
    ],
)
def test_another_sites_page_can_do_nothing(
    flower: Flower, waiting: Batch, headers: dict[str, str]
) -> None:
    path = f"/api/batches/{waiting.id}/cancel"
    assert flower.ask(path, method="POST", headers=headers)[0] == 403
    assert waiting.record().status is BatchStatus.PAUSED
    assert flower.ask(path, headers=headers)[0] == 405  # and no link does it


def test_a_flower_that_only_reads_refuses_every_action(flowers: Flowers, waiting: Batch) -> None:
    reader = flowers["reader"]
    for action in ("cancel", "pause", "resume", "retry"):
        status, text = reader.ask(f"/api/batches/{waiting.id}/{action}", method="POST")
        assert (status, text) == (403, "Read only mode is enabled")
    assert waiting.record().status is BatchStatus.PAUSED
    assert "data-action" not in reader.get(f"/batch/{waiting.id}")


def test_a_batch_is_paused_resumed_and_cancelled(
    deployment: Deployment, flower: Flower, waiting: Batch
) -> None:
    def act(action: str) -> Any:
        status, text = flower.ask(f"/api/batches/{waiting.id}/{action}", method="POST")
        assert status == 200, text
        return json.loads(text)

    assert act("resume") == {"status": "in_progress"}
    wait_until(lambda: flower.json(f"/batch/{waiting.id}/data")["running"], what="items run")
    wait_until(lambda: flower.json(f"/batch/{waiting.id}/data")["workers"], what="Flower heard it")
    assert act("pause") == {"status": "paused"}
    assert act("cancel")["status"] in ("cancelling", "cancelled")
    assert waiting.wait(30).status is BatchStatus.CANCELLED


def test_failed_items_run_again_all_or_of_one_code(flower: Flower, deployment: Deployment) -> None:
    inputs = [{"value": n, "fail": "bug" if n % 2 else "chain"} for n in range(10)]
    batch = deployment.client.submit("may-fail", inputs)
    batch.wait(60)
    for query, retried in (("?code=refusal", 5), ("?code=refusal&code=KeyError", 10), ("", 10)):
        status, text = flower.ask(f"/api/batches/{batch.id}/retry{query}", method="POST")
        assert (status, json.loads(text)["retried"]) == (200, retried)
        batch.wait(60)
    assert flower.json(f"/batch/{batch.id}/data")["retried"] == 25


def test_only_a_completed_batchs_items_run_again(flower: Flower, waiting: Batch) -> None:
    status, text = flower.ask(f"/api/batches/{waiting.id}/retry", method="POST")
    assert status == 409
    assert "only a completed batch" in text


def test_results_and_errors_are_downloaded_where_payloads_are_let_out(
    flowers: Flowers, ended: Batch
) -> None:
    reader = flowers["reader"]
    results = [
        json.loads(line) for line in reader.get(f"/batch/{ended.id}/results.jsonl").split("\n")[:-1]
    ]
    assert results == [json.loads(item.model_dump_json()) for item in ended.results()]
    errors = reader.get(f"/batch/{ended.id}/errors.jsonl").splitlines()
    assert [json.loads(line)["index"] for line in errors] == list(range(0, 40, 5))


def test_payloads_are_on_no_page_unless_the_setting_lets_them_out(
    flowers: Flowers, ended: Batch, deployment: Deployment
) -> None:
    refused = deployment.client.submit(
        "hostile-error", [CANARY, "long", "Unprintable"], custom_ids=["a", "b", "c"]
    )
    refused.wait(60)
    seen = {}
    for name in ("plain", "reader"):
        flower = flowers[name]
        paths = ["/batches", "/batches/data", "/api/batches", "/metrics"]
        for batch in (ended, refused):
            paths += [f"/batch/{batch.id}", f"/batch/{batch.id}/data", f"/api/batches/{batch.id}"]
        seen[name] = "\n".join(map(flower.get, paths))
        for path in ("/batches/events", f"/batch/{ended.id}/events"):
            with flower.events(path) as events:
                seen[name] += next(events)[1]
        for kind in ("results", "errors"):
            status, text = flower.ask(f"/batch/{ended.id}/{kind}.jsonl")
            assert status == (200 if name == "reader" else 403)
            seen[name] += text
    assert CANARY not in seen["plain"]
    assert "as asked" not in seen["plain"]
    assert "x" * 100 not in seen["plain"]
    assert "BATCHORD_FLOWER_PAYLOADS" in seen["plain"]
    assert f"{CANARY} 5" in seen["reader"]
    assert "as asked" in seen["reader"]


def test_what_a_paused_batch_met_is_told_without_its_message(
    flowers: Flowers, deployment: Deployment
) -> None:
    batch = deployment.client.submit("may-fail", [{"value": CANARY, "fail": "operator"}] * 5)
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="the workers pause it")
    told = {
        name: flowers[name].json(f"/batch/{batch.id}/data")["reason"]
        for name in flowers
        if name != "open"
    }
    assert told["plain"]["code"] == told["reader"]["code"] == "authentication_error"
    assert told["plain"]["message"] is None
    assert told["reader"]["message"] == "no such key"
    batch.cancel()


@pytest.mark.parametrize(
    ("origin", "shown"),
    [({"origin": "ledger"}, True), ({"origin": "error"}, False), ({}, False)],
    ids=["the ledger's words", "a provider's words", "nobody says whose words"],
)
def test_a_pause_of_the_whole_batch_is_told_by_whose_words_it_is(
    flowers: Flowers, deployment: Deployment, origin: dict[str, Any], shown: bool
) -> None:
    batch = deployment.client.submit("nap", [{"seconds": 30, "value": n} for n in range(20)])
    store = BatchStore(deployment.settings)
    # As a poller does in provider mode, whose reasons name no item.
    reason = PauseReason(code="server_error", message=f"no: {CANARY}", **origin)
    ItemLeases(store).pause(batch.id, reason)
    told = {
        name: flowers[name].json(f"/batch/{batch.id}/data")["reason"]
        for name in ("plain", "reader")
    }
    page = flowers["plain"].get(f"/batch/{batch.id}")
    metrics = flowers["plain"].get("/metrics")
    batch.cancel()
    batch.wait(30)
    store.close()
    assert told["plain"]["code"] == "server_error"
    assert told["plain"]["message"] == (reason.message if shown else None)
    assert told["reader"]["message"] == reason.message
    assert (CANARY in page, CANARY in metrics) == (False, False) or shown


def test_pages_are_told_what_is_new(flower: Flower, waiting: Batch) -> None:
    with (
        flower.events("/batches/events?text=nap") as rows,
        flower.events(f"/batch/{waiting.id}/events") as batch,
    ):
        event, data = next(batch)
        assert event == "message"
        assert json.loads(data)["status"] == "paused"
        assert json.loads(next(rows)[1])["batches"][0]["id"] == waiting.id
        waiting.cancel()
        statuses = (json.loads(data)["status"] for _, data in batch)
        assert "cancelled" in statuses
        listed = (json.loads(data)["batches"][0]["status"] for _, data in rows)
        assert "cancelled" in listed


def test_a_page_is_told_that_its_batch_is_gone(flower: Flower, deployment: Deployment) -> None:
    batch = deployment.client.submit("echo", [0])
    batch.wait(60)
    with flower.events(f"/batch/{batch.id}/events") as events:
        next(events)
        deployment.client.purge(batch.id)
        [*_, (event, text)] = events
    assert event == "trouble"
    assert batch.id in text


def test_names_that_are_markup_stay_text(flower: Flower, ended: Batch) -> None:
    """Pages have no data in them; they fetch it as JSON, which no browser takes for a page."""
    for path in ("/batches", f"/batches?text={quote(MARKUP)}", f"/batch/{ended.id}"):
        assert "hacked" not in flower.get(path)
    status, text = flower.ask(f"/batch/{quote(MARKUP, safe='')}")
    assert status == 404
    assert "<script>window" not in text


def test_metrics_tell_of_batches_by_chain(flower: Flower, waiting: Batch, ended: Batch) -> None:
    text = flower.get("/metrics")
    assert "batchord_up 1.0" in text
    assert 'batchord_batches{chain="nap",status="paused"}' in text
    [queued] = re.findall(r'batchord_items\{chain="nap",status="queued"\} ([0-9.]+)', text)
    assert float(queued) > 0
    outcomes = re.findall(
        r'batchord_outcomes_total\{chain="may-fail",status="(\w+)"\} ([0-9.]+)', text
    )
    assert {"succeeded", "failed", "cancelled", "expired"} == {status for status, _ in outcomes}
    assert float(dict(outcomes)["failed"]) >= 8
    assert "flower_events_total" in text
    assert waiting.id not in text


def test_the_workers_are_listed_with_what_they_run(flower: Flower) -> None:
    [worker] = flower.json("/api/batches/workers")["workers"]
    assert worker["slots"] == 8
    assert "nap" in worker["chains"]
    shown = flower.json("/batches/data")["workers"]
    assert (shown["count"], shown["slots"]) == (1, 8)
    assert [each["name"] for each in shown["shown"]] == [worker["name"]]
    text = flower.get("/metrics")
    assert f'batchord_worker_slots{{process="{worker["process"]}"}} 8.0' in text
    assert f'batchord_workers{{version="{worker["version"]}"}} 1.0' in text


def test_what_the_dashboard_and_the_docs_name_is_among_the_metrics(flower: Flower) -> None:
    told = set(re.findall(r"^# TYPE (batchord_\w+) ", flower.get("/metrics"), re.MULTILINE))
    for page in ("docs/flower/grafana.json", "docs/operating.md"):
        named = set(re.findall(r"\bbatchord_\w+", (ROOT / page).read_text()))
        assert len(named) > 5
        assert named <= told, page


def test_a_download_that_breaks_off_is_not_taken_for_a_whole_one(
    server: Server, deploy: Deploy
) -> None:
    deployment = deploy(url=server.url, socket_timeout=1)
    flower = Flower(deployment, env={"BATCHORD_FLOWER_PAYLOADS": "1"})
    deployment.start_worker()
    batch = deployment.client.submit("echo", ["x" * 200_000] * 300)
    batch.wait(60)
    wait_until(lambda: flower.status("/batches") == 200, what="Flower answers", timeout=30)
    request = flower.request(f"/batch/{batch.id}/results.jsonl")
    with urlopen(request, timeout=30) as answer:
        assert b"xxx" in answer.read(1_000_000)  # the rest waits for us
        server.stall()
        try:
            with pytest.raises((IncompleteRead, ConnectionError)):
                answer.read()
        finally:
            server.go_on()
    wait_until(lambda: flower.status("/batches/data") == 200, what="it goes on")


def test_a_redis_that_is_silent_stops_no_other_page(server: Server, deploy: Deploy) -> None:
    deployment = deploy(url=server.url, socket_timeout=5)
    flower = Flower(deployment)
    wait_until(lambda: flower.status("/batches/data") == 200, what="Flower answers", timeout=30)
    server.stall()
    answers: list[int] = []
    asking = [
        threading.Thread(target=lambda: answers.append(flower.status("/batches/data")))
        for _ in range(3)
    ]
    for thread in asking:
        thread.start()
    try:
        for _ in range(5):
            assert flower.status("/healthcheck") == 200
            assert flower.status("/batches") == 200
        assert answers == []
    finally:
        server.go_on()
        for thread in asking:
            thread.join()
    assert answers == [200] * 3


def test_a_task_of_a_batch_cannot_be_revoked(flower: Flower) -> None:
    status, text = flower.ask(f"/api/task/revoke/{NOBODY}:3?terminate=true", method="POST")
    assert status == 409
    assert f"batchord cancel {NOBODY}" in json.loads(text)["message"]
