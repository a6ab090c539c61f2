"""LangChain's objects on workers: usage and budgets, caches, errors, documents, inputs."""

import dataclasses
import datetime
import decimal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document as LangChainDocument

from batchord import Budget
from batchord.chains import Document, coerce, get_chain
from batchord.ledger.models import BatchStatus
from tests.chains_for_tests.adapters import CACHED, DIFFERENT, FAILING, METERED, named
from tests.conftest import Deploy
from tests.support.harness import Deployment, provider_env, refused, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

#: As the server counts "ask this": tokens, and their price in billionths.
PRICES = '{"test-model": {"input": 2, "output": 10}}'


@pytest.fixture(scope="module")
def worker(
    deploy_for_module: Deploy,
    provider_for_module: OpenAIServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Deployment:
    prices = tmp_path_factory.mktemp("prices") / "prices.json"
    prices.write_text(PRICES)
    deployment = deploy_for_module(prices=prices, alike_limit=0)
    env = {
        "BATCHORD_CHAINS": "tests.chains_for_tests.adapters",
        **provider_env(provider_for_module),
    }
    process = deployment.start_worker(env=env, wait=False)
    # It imports all of LangChain.
    wait_until(lambda: " ready." in process.log or not process.alive, timeout=90, what="it starts")
    assert process.alive, process.log
    return deployment


@pytest.mark.parametrize("name", METERED)
def test_what_a_model_uses_is_counted_once(worker: Deployment, name: str) -> None:
    [own] = worker.client.submit(named("metered", "own"), ["ask this"]).results()
    [item] = worker.client.submit(named("metered", name), ["ask this"]).results()
    assert item.usage is not None, item.error
    assert own.usage is not None
    assert own.usage.cost_nanos
    assert item.usage.counts() == own.usage.counts()


@pytest.mark.parametrize("name", ["model", "in a function"])
def test_a_budget_stops_a_batch_of_a_langchain_model(worker: Deployment, name: str) -> None:
    batch = worker.client.submit(
        named("metered", name), ["word"] * 60, budget=Budget(usd=0.0000001), max_concurrency=1
    )
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses")
    reason = batch.record().reason
    assert reason is not None
    assert reason.code == "budget_exceeded"
    batch.cancel()
    batch.wait(timeout=60)


def test_a_budget_needs_usage_that_is_known(worker: Deployment) -> None:
    said = refused(worker, "metered-custom", ["a"], budget=Budget(tokens=10))
    assert "batchord.report_usage" in said
    assert "reports_usage=True" in said
    batch = worker.client.submit("metered-custom-reported", ["a"], budget=Budget(tokens=10))
    [item] = batch.results()
    assert item.usage is not None
    assert item.usage.total_tokens == 2


@pytest.mark.parametrize("name", FAILING)
def test_an_error_has_its_code_and_its_inner_step(worker: Deployment, name: str) -> None:
    _, value, code, step = FAILING[name]
    [item] = worker.client.submit(named("failing", name), [value]).results()
    assert item.error is not None
    assert (item.error.code, item.error.step) == (code, step)


@pytest.mark.parametrize("name", CACHED)
def test_a_cache_needs_settings_that_are_known(worker: Deployment, name: str) -> None:
    _, why = CACHED[name]
    if why is None:
        value = {"text": "a"} if name == "serializable" else "a"
        for cached in (False, True):
            [item] = worker.client.submit(named("cached", name), [value], cache=True).results()
            assert bool(item.cached) is cached, item
    else:
        said = refused(worker, named("cached", name), ["a"], cache=True)
        assert why in said
        assert "version=" in said


def test_a_version_is_enough_for_a_cache(worker: Deployment) -> None:
    for cached in (False, True):
        [item] = worker.client.submit("cached-custom-versioned", ["a"], cache=True).results()
        assert bool(item.cached) is cached


def test_other_settings_have_another_fingerprint() -> None:
    found = [repr(coerce(chain).fingerprint()) for chain in DIFFERENT]
    assert len(set(found)) == len(DIFFERENT)
    assert not any("none" in one or "0x" in one for one in found), "a key, or an address"


@pytest.mark.parametrize("make", [Document, lambda text: LangChainDocument(page_content=text)])
def test_documents_are_the_same_text_here_and_on_workers(
    worker: Deployment, make: Callable[[str], Any]
) -> None:
    for documents in ([make("one"), make("two")], make("one")):
        value = {"documents": documents}
        here = get_chain("documents").chain.invoke(value)
        assert here == ("Read: one\n\ntwo" if isinstance(documents, list) else "Read: one")
        assert worker.client.submit("documents", [value]).outputs() == [here]


def test_a_runnable_without_async_runs_on_workers(worker: Deployment) -> None:
    assert worker.client.submit("sync-only", [1, 2]).outputs() == ["<1>", "<2>"]


def test_a_graph_with_a_sync_checkpointer_runs_on_workers(worker: Deployment) -> None:
    configs: Any = [{"configurable": {"thread_id": each}} for each in ("one", "two")]
    batch = worker.client.submit(
        "sync-checkpointer", [{"count": n} for n in (1, 5)], config=configs
    )
    assert batch.outputs() == [{"count": 2}, {"count": 6}]


@dataclasses.dataclass
class Point:
    x: int
    at: datetime.date


DAY = datetime.date(2026, 11, 28)

#: What is submitted, and what the chain is given.
INPUTS: dict[str, tuple[Any, Any]] = {
    "dataclass": (Point(1, DAY), {"x": 1, "at": "2026-11-28"}),
    "datetime": (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "2026-01-02T00:00:00Z"),
    "Decimal": (decimal.Decimal("1.10"), "1.10"),
    "UUID": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "set": ({"b", "a"}, ["a", "b"]),
    "path": (Path("a/b"), "a/b"),
    "nested": ({"a": [{1, 2}, Point(2, DAY)]}, {"a": [[1, 2], {"x": 2, "at": "2026-11-28"}]}),
    "numpy array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "numpy scalars": ([np.int64(1), np.float32(0.5), np.True_], [1, 0.5, True]),
    "numpy time": (np.datetime64("2026-11-28"), "2026-11-28"),
}


@pytest.fixture(scope="module")
def echoes(worker: Deployment) -> list[Any]:
    inputs = (value for value, _ in INPUTS.values())
    return worker.client.submit("echo-json", inputs).outputs()


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_are_json_where_pydantic_knows_how(echoes: list[Any], name: str) -> None:
    assert echoes[list(INPUTS).index(name)] == INPUTS[name][1]


def test_outputs_are_too(worker: Deployment) -> None:
    expected = {"scalar": 1, "array": [1.0], "set": [1, 2], "day": "2026-11-28"}
    assert worker.client.submit("gives-values", [0]).outputs() == [expected]


def test_the_inputs_may_be_a_generator_or_an_array(worker: Deployment) -> None:
    assert worker.client.submit("sync-only", (n for n in range(2))).outputs() == ["<0>", "<1>"]
    assert worker.client.submit("sync-only", np.arange(2)).outputs() == ["<0>", "<1>"]
