"""The table of answers again: items of real workers, files of requests, provider mode."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from batchord.chains import Chat, register
from batchord.chains.runtime.retry import RetryPolicy
from batchord.chains.steps.raw_request import register_requests
from batchord.io.openai_lines import line
from batchord.ledger.models import Item
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.providers.rows import Row
from tests.providers.server import MisbehavingServer
from tests.providers.test_answers import ROWS, posted, posted_response
from tests.support.harness import Deployment, provider_env

pytestmark = pytest.mark.timeout(120)

FAST: dict[str, Any] = {
    "sweep_interval": 0.1,
    "provider_poll": 0.1,
    "alike_limit": 0,
    # What a provider answers is judged here, and not whether it is down.
    "outage_patience": 0.0,
}
AT_ONCE = RetryPolicy(initial=0.0)


def rows_of(route: str) -> list[Row]:
    """The rows of a route that pause no batch; those that slow down all others come last."""
    rows = [row for row in ROWS if route in row.routes and not row.needs_operator]
    return sorted(rows, key=lambda row: row.code == "rate_limited")


@pytest.fixture(scope="module")
def deployment(deploy_for_module: Deploy, misbehaving: MisbehavingServer) -> Deployment:
    register("answers", Chat("test-model", retry=AT_ONCE), replace=True)
    register_requests()
    deployment = deploy_for_module(**FAST)
    env = {
        **provider_env(misbehaving),
        "BATCHORD_CHAINS": "tests.providers.chains_on_workers",
    }
    deployment.start_worker(env=env)
    return deployment


@pytest.fixture
def told(misbehaving: MisbehavingServer) -> Iterator[MisbehavingServer]:
    """The provider, under every row of the table at once."""
    misbehaving.reset()
    for row in ROWS:
        row.set_up(misbehaving)
    yield misbehaving
    misbehaving.reset()


def judged(row: Row, item: Item) -> None:
    if item.error is None:
        row.judge_output(item.output)
    else:
        row.judge_error(item.error)


def ended(batch: Batch) -> list[Item]:
    batch.wait(90)
    return list(batch.results())


def test_every_row_of_a_chat_on_a_worker(deployment: Deployment, told: MisbehavingServer) -> None:
    rows = rows_of("chat")
    batch = deployment.client.submit("answers", [f"{row.match} hello" for row in rows])
    for row, item in zip(rows, ended(batch), strict=True):
        judged(row, item)
        if row.calls is not None:
            assert told.calls(row.match) == row.calls, row.name


def test_every_row_in_a_file_of_requests(deployment: Deployment, told: MisbehavingServer) -> None:
    rows = [(row, posted) for row in rows_of("request")]
    rows += [(row, posted_response) for row in rows_of("posted-response")]
    inputs = [make(f"{row.match} hello") for row, make in rows]
    batch = deployment.client.submit("openai-requests", inputs)
    for (row, _), item in zip(rows, ended(batch), strict=True):
        if item.error is None:
            assert row.code is None, row.name
            continue
        row.judge_error(item.error)
        written = json.loads(line(batch.id, item))
        answer = written["response"]
        if row.code == "connection_error":
            assert answer is None
        elif row.code not in ("length", "content_filter"):
            assert answer["status_code"] >= 400, row.name
            assert answer["body"] is not None, row.name


def test_every_row_in_provider_mode(deployment: Deployment, told: MisbehavingServer) -> None:
    rows = [row for row in rows_of("chat") if row.times is None and not row.http]
    inputs = [f"{row.match} hello" for row in rows]
    batch = deployment.client.submit("answers", inputs, mode="provider")
    for row, item in zip(rows, ended(batch), strict=True):
        judged(row, item)
