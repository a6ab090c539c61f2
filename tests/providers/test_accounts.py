"""Faults of the account and of one request, told apart by what other requests meet."""

from dataclasses import dataclass

import pytest

from batchord.chains import register
from batchord.chains.errors import OperatorNeeded
from batchord.chains.openai.errors import of_status
from batchord.ledger.models import BatchStatus, ItemStatus
from tests.conftest import Deploy
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer


@pytest.mark.parametrize(
    ("status", "said", "operator"),
    [
        (429, {"code": "insufficient_quota"}, True),
        (429, {"type": "insufficient_quota"}, True),
        (429, {"code": "billing_not_active"}, True),
        (400, {"code": "billing_hard_limit_reached"}, True),
        (402, {}, True),
        (400, {"message": "Insufficient Balance"}, True),
        (429, {"code": "rate_limit_exceeded"}, False),
        (400, {"message": "the story has the words Insufficient Balance in it"}, False),
        (500, {"code": "insufficient_quota"}, False),
    ],
)
def test_whether_the_account_cannot_pay(status: int, said: dict[str, str], operator: bool) -> None:
    error = of_status(status, said, otherwise="silent")
    assert isinstance(error, OperatorNeeded) is operator
    assert (error.code == "insufficient_quota") is operator
    assert said.get("message", "silent") in str(error)


@pytest.fixture(scope="module")
def fleet(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Deployment:
    register("ask", lambda value: value, replace=True)
    deployment = deploy_for_module(shard_size=20, sweep_interval=0.2, alike_limit=0)
    env = {
        **provider_env(provider_for_module),
        "BATCHORD_CHAINS": "tests.providers.outage_chains",
    }
    workers = [deployment.start_worker(concurrency=4, env=env, wait=False) for _ in range(2)]
    for worker in workers:
        deployment.wait_for_worker(worker)
    return deployment


@pytest.fixture
def provider(provider_for_module: OpenAIServer) -> OpenAIServer:
    provider_for_module.reset()
    provider_for_module.delay = 0.05
    return provider_for_module


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A refusal of one request, and the code of its error."""

    status: int
    code: str
    said: str | None = None

    def set_up(self, server: OpenAIServer, match: str | None) -> None:
        server.fail_when(match, status=self.status, code=self.said)


# fmt: off
REFUSALS = [
    Refusal(status=401, code="authentication_error"),
    Refusal(status=402, code="insufficient_quota"),
    Refusal(status=403, code="permission_denied"),
    Refusal(status=404, code="model_not_found"),
    Refusal(status=429, code="insufficient_quota", said="insufficient_quota"),
    Refusal(status=429, code="insufficient_quota", said="billing_not_active"),
]
# fmt: on


@pytest.mark.timeout(90)
@pytest.mark.parametrize("row", REFUSALS, ids=str)
def test_what_one_request_meets_among_many_is_its_own(
    fleet: Deployment, provider: OpenAIServer, row: Refusal
) -> None:
    row.set_up(provider, "text 20 ")
    batch = fleet.client.submit("ask", [f"text {i} " for i in range(80)])
    record = batch.wait(60)
    assert record.status is BatchStatus.COMPLETED
    [failed] = [item for item in batch.results() if item.error is not None]
    assert failed.error is not None
    assert (failed.index, failed.error.code) == (20, row.code)
    assert failed.error.http_status == row.status
    assert sum(request.status == row.status for request in provider.requests) <= 5


@pytest.mark.timeout(90)
@pytest.mark.parametrize("row", REFUSALS, ids=str)
def test_what_all_meet_pauses_the_batch_and_fails_no_item(
    fleet: Deployment, provider: OpenAIServer, row: Refusal
) -> None:
    batch = fleet.client.submit("ask", [f"text {i}" for i in range(120)])
    wait_until(lambda: batch.record().request_counts.done > 20, what="it is under way")
    row.set_up(provider, None)
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses", timeout=30)
    wait_until(lambda: batch.record().running == 0, what="nothing runs any more", timeout=30)
    reason = batch.record().reason
    assert reason is not None
    assert reason.code == row.code
    assert "told to fail" in reason.message
    refused = sum(request.status == row.status for request in provider.requests)
    assert 3 <= refused <= 2 * 4 + 12
    provider.forget_rules()
    batch.resume()
    record = batch.wait(60)
    assert record.request_counts.succeeded == 120
    assert {item.attempts for item in batch.results()} == {1}


@pytest.mark.timeout(90)
def test_an_item_alone_pauses_its_batch_and_after_two_resumes_ends(
    fleet: Deployment, provider: OpenAIServer
) -> None:
    provider.fail_when(None, status=403)
    batch = fleet.client.submit("ask", ["alone"])
    for _ in range(2):
        wait_until(
            lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses", timeout=30
        )
        wait_until(lambda: batch.record().running == 0, what="nothing runs", timeout=30)
        batch.resume()
    assert batch.wait(30).status is BatchStatus.COMPLETED
    [item] = batch.results()
    assert item.status is ItemStatus.FAILED
    assert item.error is not None
    assert item.error.code == "permission_denied"
