"""Beyond OpenAI: windows of any length, idempotent creates, control, progress, webhooks."""

import base64
import os
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
import trustme

from tests.conftest import Deploy
from tests.support.api_server import CHAT, ApiServer, ended, jsonl, lines_of, make, request
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer
from tests.support.webhook_receiver import SECRET, Receiver

pytestmark = pytest.mark.timeout(120)

WINDOWS = {"24h": 86_400, "90m": 5_400, "7d": 604_800, "30s": 30}


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_of_any_length(client: openai.OpenAI, window: str) -> None:
    batch = make(client, [request(0)], completion_window=window)
    assert (batch.completion_window, batch.expires_at - batch.created_at) == (
        window,
        WINDOWS[window],
    )
    ended(client, batch)


def test_the_same_idempotency_key_is_the_same_batch(client: openai.OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", jsonl([request(0)])), purpose="batch")

    def create(key: str, **more: Any) -> str:
        asked = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **more}
        headers = {"Idempotency-Key": key}
        return client.batches.create(**asked, extra_headers=headers).id

    first = create("one")
    assert create("one") == first
    assert create("two") != first
    with pytest.raises(openai.BadRequestError) as caught:
        create("one", metadata={"another": "batch"})
    assert caught.value.type == "idempotency_error"
    with pytest.raises(openai.BadRequestError):
        create("k" * 600)


def _post(api: ApiServer, path: str, **body: Any) -> Any:
    headers = {"Authorization": f"Bearer {api.keys['ann']}"}
    answer = httpx2.post(f"{api.root}/v1{path}", headers=headers, json=body, timeout=60)
    return answer.json() if answer.is_success else answer.json()["error"]


def _progress(api: ApiServer, batch: Any) -> Any:
    headers = {"Authorization": f"Bearer {api.keys['ann']}"}
    url = f"{api.root}/v1/batches/{batch.id}/progress"
    return httpx2.get(url, headers=headers, timeout=60).json()


def test_pause_and_resume_and_what_is_there_can_be_read_meanwhile(
    api: ApiServer, client: openai.OpenAI, provider: OpenAIServer
) -> None:
    provider.fail_when("text 0", status=422)
    provider.delay = lambda text: 0.2
    lines = [request(i) for i in range(20)]
    batch = make(client, lines, extra_body={"max_concurrency": 1})
    wait_until(
        lambda: _progress(api, batch)["request_counts"]["completed"] > 1, "some ran", timeout=60
    )
    paused = _post(api, f"/batches/{batch.id}/pause")
    assert (paused["status"], paused["batchord"]["paused"]) == ("in_progress", True)
    assert (paused["output_file_id"], paused["error_file_id"]) == (None, None)
    wait_until(lambda: _progress(api, batch)["running"] == 0, "nothing runs", timeout=60)
    known = _progress(api, batch)
    assert known["object"] == "batch.progress"
    assert [(each["code"], each["count"]) for each in known["failures"]] == [("unprocessable", 1)]
    done = known["request_counts"]["completed"]
    read = [line["custom_id"] for line in lines_of(client, known["output_file_id"])]
    assert read == [f"request-{i}" for i in range(1, done + 1)]
    assert len(lines_of(client, known["error_file_id"])) == 1
    provider.delay = 0.0
    assert _post(api, f"/batches/{batch.id}/resume")["batchord"]["paused"] is False
    assert ended(client, batch).request_counts.completed == 19


def test_retry_runs_what_has_failed_again_in_place(
    api: ApiServer, client: openai.OpenAI, provider: OpenAIServer
) -> None:
    provider.fail_when("text 1", status=422)
    batch = make(client, [request(i) for i in range(3)])
    first = ended(client, batch)
    assert first.request_counts.failed == 1
    assert client.files.retrieve(first.output_file_id).bytes > 0
    provider.forget_rules()
    assert _post(api, f"/batches/{batch.id}/retry", codes="all")["param"] == "codes"
    _post(api, f"/batches/{batch.id}/retry", codes=["unprocessable"])
    again = wait_until(
        lambda: (found := ended(client, batch)).request_counts.failed == 0 and found,
        "it has ended again",
        timeout=60,
    )
    assert again.error_file_id is None
    lines = lines_of(client, again.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"request-{i}" for i in range(3)]
    whole = client.files.content(again.output_file_id).read()
    assert client.files.retrieve(again.output_file_id).bytes == len(whole)


def test_a_batch_that_does_not_run_cannot_be_controlled(
    api: ApiServer, client: openai.OpenAI
) -> None:
    failed = ended(client, make(client, ["{"]))
    for what in ("pause", "resume", "retry"):
        refused = _post(api, f"/batches/{failed.id}/{what}")
        assert refused["code"] == "invalid_status"
    assert _progress(api, failed)["status"] == "failed"
    assert _post(api, "/batches/batch_1/pause")["code"] == "batch_not_found"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    authority = trustme.CA()
    folder = tmp_path_factory.mktemp("ca")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    with Receiver(authority) as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        yield receiver


#: Tenants by the path where the ends of their batches are told, and the variable of their secret;
#: empty: where the deployment's are.
TOLD = {"ann": ("of-ann", "ANN_SECRET"), "bob": ("of-bob", "BOB_SECRET"), "carl": ("", "")}
#: Where the deployment's are.
OTHERS = ("hook", "BATCHORD_WEBHOOK_SECRET")
SECRETS = {
    "BATCHORD_WEBHOOK_SECRET": SECRET,
    "ANN_SECRET": "whsec_" + base64.b64encode(b"a" * 32).decode(),
    "BOB_SECRET": "whsec_" + base64.b64encode(b"b" * 32).decode(),
}


@pytest.fixture(scope="module")
def telling(
    deploy_for_module: Deploy, provider_for_module: OpenAIServer, receiver: Receiver
) -> ApiServer:
    """A server whose tenants have webhooks of their own, or not."""
    deployment: Deployment = deploy_for_module(sweep_interval=0.2)
    named = {"URL": receiver.url("hook"), "HOSTS": receiver.place, "ALLOW_LOOPBACK": "true"}
    env = {f"BATCHORD_WEBHOOK_{name}": value for name, value in named.items()}
    env |= {"SSL_CERT_FILE": os.environ["SSL_CERT_FILE"], "BATCHORD_CHAINS": ""}
    deployment.start_worker(env={**provider_env(provider_for_module), **env, **SECRETS})
    tables = {
        name: f'webhook_url = "{receiver.url(path)}"\nwebhook_secret_env = "{variable}"'
        if path
        else ""
        for name, (path, variable) in TOLD.items()
    }
    # The server sends nothing, and knows no secret.
    return ApiServer(deployment, tables, env={"BATCHORD_WEBHOOK_HOSTS": receiver.place})


@pytest.mark.parametrize("tenant", TOLD)
def test_webhooks_go_to_their_tenant_and_pass_the_sdks_unwrap(
    tenant: str, telling: ApiServer, provider: OpenAIServer, receiver: Receiver
) -> None:
    path, variable = (part or default for part, default in zip(TOLD[tenant], OTHERS, strict=True))
    provider.hang_when("hangs")
    with telling.client(tenant, webhook_secret=SECRETS[variable]) as client:
        done = ended(client, make(client, [request(0)]))
        failed = ended(client, make(client, ["{"], metadata={"a": "b"}))
        expired = ended(client, make(client, [request(0, "hangs")], completion_window="2s"))
        running = make(client, [request(0, "hangs")])
        client.batches.cancel(running.id)
        cancelled = ended(client, running)
        batches = {each.id: each for each in (done, failed, expired, cancelled)}
        wait_until(lambda: len(receiver.received[path]) >= 4, "all are told", timeout=60)
        received = receiver.received[path]
        events = [client.webhooks.unwrap(each.body, each.headers) for each in received]
    assert {(type(each).__name__, each.data.id) for each in events} == {  # type: ignore[union-attr]
        ("BatchCompletedWebhookEvent", done.id),
        ("BatchFailedWebhookEvent", failed.id),
        ("BatchExpiredWebhookEvent", expired.id),
        ("BatchCancelledWebhookEvent", cancelled.id),
    }
    for event, each in zip(events, received, strict=True):
        assert (event.id, event.object) == (each.id, "event")
        assert type(event.created_at) is int
        batch = batches[event.data.id]  # type: ignore[union-attr]
        assert event.created_at in (
            *(batch.completed_at, batch.failed_at, batch.expired_at, batch.cancelled_at),
        )
