"""Identical inputs run once in a batch, and answers are used again in later ones, if one asks."""

from collections import Counter
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.errors import SubmitRefused
from tests.conftest import Deploy
from tests.support.cli_harness import Shell
from tests.support.harness import Deployment, Process, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(60)

CHAINS = "tests.chains_for_tests.versions"


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    register("answer", lambda value: value, replace=True)
    return deploy(lease=3, sweep_interval=0.2, shard_size=20, alike_limit=0)


def start(deployment: Deployment, provider: OpenAIServer, **env: str) -> Process:
    return deployment.start_worker(env={"BATCHORD_CHAINS": CHAINS, **provider_env(provider), **env})


def asked(provider: OpenAIServer) -> Counter[str]:
    return Counter(request.text for request in provider.requests)


def test_of_identical_inputs_one_runs_and_all_have_its_outcome(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    workers = [start(deployment, provider) for _ in range(2)]
    assert len(workers) == 2
    # More than a page of the ledger.
    texts = [f"text {i % 7}" for i in range(1100)]
    batch = deployment.client.submit("answer", texts, dedupe=True)
    batch.wait(40)
    assert batch.outputs() == [f"echo: {text}" for text in texts]
    assert asked(provider) == {f"text {i}": 1 for i in range(7)}
    firsts = [item for item in batch.results() if item.same_as is None]
    assert len(firsts) == 7
    by_index = {item.index: item.output for item in firsts}
    assert all(
        by_index[item.same_as] == item.output
        for item in batch.results()
        if item.same_as is not None
    )
    usage = batch.record().usage
    assert usage is not None
    assert usage.requests == 7
    assert batch.record().dedupe


def test_without_being_asked_each_input_runs(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    start(deployment, provider)
    deployment.client.submit("answer", ["same"] * 5).wait(20)
    assert asked(provider) == {"same": 5}


def test_a_failure_is_shared_too_and_so_is_its_retry(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    start(deployment, provider)
    provider.fail_next(400, match="bad")
    batch = deployment.client.submit("answer", ["bad", "good", "bad", "bad"], dedupe=True)
    assert batch.wait(20).request_counts.failed == 3
    assert [item.error.code for item in batch.results() if item.error] == ["bad_request"] * 3
    assert batch.retry_failed() == 3
    assert batch.wait(20).request_counts.succeeded == 4
    assert batch.outputs() == [f"echo: {text}" for text in ("bad", "good", "bad", "bad")]
    assert asked(provider) == {"bad": 2, "good": 1}


def test_those_that_wait_for_an_item_whose_worker_died_have_its_outcome_all_the_same(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    worker = start(deployment, provider)
    provider.hang_when("slow", n=1)
    batch = deployment.client.submit("answer", ["slow"] * 4, dedupe=True)
    wait_until(lambda: batch.record().put_off == 3, what="three wait for the first")
    wait_until(lambda: asked(provider)["slow"] == 1, what="the first one is asked")
    worker.kill()
    start(deployment, provider)
    batch.wait(30)
    assert batch.outputs() == ["echo: slow"] * 4
    assert asked(provider) == {"slow": 2}


def test_a_later_batch_uses_what_an_earlier_one_was_answered(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    start(deployment, provider)
    submit = deployment.client.submit
    first = submit("answer", ["one", "two"], cache=True)
    first.wait(20)
    assert [item.cached for item in first.results()] == [False, False]
    second = submit("answer", ["two", "three"], cache=True)
    second.wait(20)
    assert second.outputs() == ["echo: two", "echo: three"]
    assert [item.cached for item in second.results()] == [True, False]
    assert asked(provider) == {"one": 1, "two": 1, "three": 1}
    usage = second.record().usage
    assert usage is not None
    assert usage.requests == 1
    # It takes and gives nothing unless it is asked to.
    submit("answer", ["one"]).wait(20)
    assert asked(provider)["one"] == 2
    names = deployment.redis.keys("batchord:cache:*")
    assert len(names) == 3
    week = 7 * 24 * 3600
    assert all(week - 60 < deployment.redis.ttl(name) <= week for name in names)


@pytest.mark.parametrize("change", [{"TEST_VERSION": "2"}, {"TEST_TEMPERATURE": "1"}], ids=str)
def test_another_version_or_setting_is_asked_anew(
    deployment: Deployment, provider: OpenAIServer, change: dict[str, str]
) -> None:
    worker = start(deployment, provider)
    deployment.client.submit("answer", ["one"], cache=True).wait(20)
    worker.kill()
    start(deployment, provider, **change)
    batch = deployment.client.submit("answer", ["one"], cache=True)
    batch.wait(20)
    assert asked(provider) == {"one": 2}


def test_failures_are_not_kept(deployment: Deployment, provider: OpenAIServer) -> None:
    start(deployment, provider)
    provider.fail_next(400)
    deployment.client.submit("answer", ["one"], cache=True).wait(20)
    assert deployment.redis.keys("batchord:cache:*") == []
    batch = deployment.client.submit("answer", ["one"], cache=True)
    batch.wait(20)
    assert batch.outputs() == ["echo: one"]


@pytest.mark.parametrize("name", ["dedupe", "cache"])
def test_what_is_no_yes_or_no_is_refused(
    traceless: Deployment, name: str, deployment: Deployment
) -> None:
    options: dict[str, Any] = {name: "yes"}
    with pytest.raises(SubmitRefused, match=f"{name}: True or False"):
        deployment.client.submit("answer", ["one"], **options)


def test_the_command_line_asks_for_them_too(deployment: Deployment) -> None:
    shell = Shell(deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url)
    try:
        asking = ("--chains", CHAINS, "--dedupe", "--cache", "--json")
        record = shell.run("submit", "answer", "-i", "-", *asking, stdin='"one"\n').json
        assert (record["dedupe"], record["cache"]) == (True, True)
        deployment.client.retrieve(record["id"]).cancel()
    finally:
        shell.close()
