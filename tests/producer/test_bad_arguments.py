"""Arguments of a submission that cannot be used are refused in one line, and leave no trace."""

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from batchord.chains import ChainNotFound, register
from batchord.ledger.errors import SubmitRefused, UnknownBatch
from batchord.ledger.models import BatchStatus
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.producer import Batch, Client
from tests.conftest import Deploy
from tests.support.harness import Deployment, refused

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", autouse=True)
def _chains() -> None:
    register("here", str, replace=True)


@pytest.fixture(scope="module")
def deployment_of_module(deploy_for_module: Deploy) -> Deployment:
    return deploy_for_module()


@pytest.fixture(scope="module")
def asked(deployment_of_module: Deployment) -> Iterator[Batch]:
    """A batch of three items that no worker runs."""
    batch = deployment_of_module.client.submit("here", [1, 2, 3])
    yield batch
    batch.cancel()


@pytest.mark.parametrize(
    "metadata",
    [
        {str(i): "x" for i in range(17)},
        {"k" * 65: "x"},
        {"k": "x" * 513},
        {"": "x"},
        {"k": 1},
        {1: "x"},
        {"k": None},
        {"k": "\ud800"},
        ["k"],
        "text",
    ],
    ids=range(10),
)
def test_metadata_beyond_its_limits_is_refused(traceless: Deployment, metadata: Any) -> None:
    assert "metadata" in refused(traceless, "here", [1], metadata=metadata)


def test_metadata_at_its_limits_comes_back(shared: Deployment) -> None:
    metadata = {f"{i:064}": "é" * 512 for i in range(16)}
    batch = shared.client.submit("echo", [1], metadata=metadata)
    assert batch.wait(10).metadata == metadata


@pytest.mark.parametrize("key", ["", "k" * 513, 7, b"k", ["k"], "\ud800"], ids=range(6))
def test_a_bad_idempotency_key_is_refused(traceless: Deployment, key: Any) -> None:
    assert "idempotency_key" in refused(traceless, "here", [1], idempotency_key=key)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3", True], ids=str)
def test_a_bad_max_concurrency_is_refused(traceless: Deployment, limit: Any) -> None:
    assert "max_concurrency" in refused(traceless, "here", [1], max_concurrency=limit)


@pytest.mark.parametrize("size", [0, 1001, 2.0, "many", True, None], ids=str)
def test_a_bad_items_per_task_is_refused(traceless: Deployment, size: Any) -> None:
    assert "items_per_task" in refused(traceless, "here", [1], items_per_task=size)


@pytest.mark.parametrize("priority", [-1, 10, "high", True, None], ids=str)
def test_a_bad_priority_is_refused(traceless: Deployment, priority: Any) -> None:
    assert "priority" in refused(traceless, "here", [1], priority=priority)


def _any(value: Any) -> Any:
    """A value whose type is wrong on purpose."""
    return value


def _purge(batch_id: Any, _: Batch, client: Client) -> bool:
    return client.purge(batch_id)


def _retrieve(batch_id: Any, _: Batch, client: Client) -> Batch:
    return client.retrieve(batch_id)


def _reader(client: Client) -> BatchReader:
    return client._reader


#: What is asked of a batch of three items, of its client or of its ledger, and how it is refused.
ASKED: list[tuple[Callable[[Batch, Client], Any], type[Exception], str]] = [
    (lambda batch, _: list(batch.items(-2)), ValueError, "start: an int of at least 0, not -2"),
    (lambda batch, _: list(batch.items(0, -1)), ValueError, "stop: an int of at least 0, not -1"),
    (lambda batch, _: list(batch.items(_any("1"))), TypeError, "start: an int of at least 0, not"),
    (lambda batch, _: list(batch.items(0, _any(1.5))), TypeError, "stop: an int of at least 0"),
    (lambda batch, _: list(batch.items(True)), TypeError, "start: an int of at least 0"),
    (lambda batch, _: batch.history(-1), ValueError, "index: an int of at least 0, not -1"),
    (lambda batch, _: batch.history(_any(None)), TypeError, "index: an int of at least 0"),
    (lambda batch, _: batch.history(3), IndexError, "has 3 items, there is no item 3"),
    (lambda batch, _: batch.history(10**12), IndexError, "has 3 items, there is no item 10000"),
    (lambda batch, _: batch.wait(-1), ValueError, "timeout: seconds of at least 0, or None, not"),
    (lambda batch, _: batch.wait(float("nan")), ValueError, "timeout: seconds of at least 0"),
    (lambda batch, _: batch.wait(_any("5")), TypeError, "timeout: seconds of at least 0"),
    (lambda batch, _: batch.wait(True), TypeError, "timeout: seconds of at least 0"),
    (lambda batch, _: batch.wait(0), TimeoutError, "has not ended within 0 s"),
    (lambda batch, _: batch.retry_failed("timeout"), TypeError, "codes: a list of codes"),
    (lambda batch, _: batch.retry_failed(_any([7])), TypeError, "codes: each is a str, not a int"),
    (lambda batch, _: batch.retry_failed(_any(7)), TypeError, "codes: a list of codes"),
    (lambda batch, _: batch.export("x", output=_any("xls")), ValueError, "output is one of jsonl"),
    (lambda batch, _: batch.resume(budget=_any(5)), SubmitRefused, "budget"),
    (lambda _, client: client.list(limit=-1), ValueError, "limit: an int of at least 1, not -1"),
    (lambda _, client: client.list(limit=0), ValueError, "limit: an int of at least 1, not 0"),
    (lambda _, client: client.list(limit=_any("5")), TypeError, "limit: an int of at least 1"),
    (lambda _, client: client.list(limit=_any(None)), TypeError, "limit: an int of at least 1"),
    (lambda _, client: client.list(after="nobody"), UnknownBatch, "unknown batch 'nobody'"),
    (lambda _, client: client.list(after=_any(7)), UnknownBatch, "unknown batch 7"),
    *[
        (partial(_purge, each), UnknownBatch, "unknown batch")
        for each in (None, 7, b"batch_", "", "*", "batch_" + "0" * 24, "batch_x}:meta")
    ],
    *[
        (partial(_retrieve, each), UnknownBatch, "unknown batch")
        for each in (None, 7, ["batch"], "", "batch_" + "G" * 24)
    ],
    (lambda _, client: client.ended_before(datetime(2026, 1, 1)), ValueError, "a time zone"),  # noqa: DTZ001
    (lambda _, client: client.ended_before(_any("2026")), TypeError, "when: a datetime with a"),
    (lambda batch, client: _reader(client).items(batch.id, -1, 2), ValueError, "start: an int"),
    (lambda batch, client: _reader(client).items(batch.id, 0, -2), ValueError, "stop: an int"),
    (lambda batch, client: _reader(client).items_at(batch.id, [0, -1]), ValueError, "index: an"),
    (lambda batch, client: _reader(client).completed(batch.id, -1), ValueError, "start: an int"),
    (lambda _, client: _reader(client).newest(limit=0, after=None), ValueError, "limit: an int"),
    (lambda _, client: _reader(client).status(_any(None)), UnknownBatch, "unknown batch None"),
    (lambda _, client: _reader(client).progress(_any(None)), UnknownBatch, "unknown batch None"),
    (lambda _, client: _reader(client).records(["x"]), UnknownBatch, "unknown batch 'x'"),
]


@pytest.mark.parametrize(("ask", "error", "says"), ASKED, ids=range(len(ASKED)))
def test_what_cannot_be_asked_is_refused_with_a_clear_error(
    asked: Batch,
    deployment_of_module: Deployment,
    ask: Callable[[Batch, Client], Any],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says) as caught:
        ask(asked, deployment_of_module.client)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert asked.record().status is BatchStatus.IN_PROGRESS


def test_what_is_behind_the_last_item_is_nothing(
    asked: Batch, deployment_of_module: Deployment
) -> None:
    assert [item.index for item in asked.items(1, 10**9)] == [1, 2]
    assert list(asked.items(3)) == list(asked.items(2, 1)) == []
    reader = _reader(deployment_of_module.client)
    assert [item.index for item in reader.items_at(asked.id, [2, 3, 10**9, 0])] == [2, 0]
    assert reader.items(asked.id, 3, 10**9) == reader.items(asked.id, 2, 1) == []
    assert asked.history(2) == []


def test_no_code_is_no_item_that_runs_again(shared: Deployment) -> None:
    register("may-fail", lambda value: value, replace=True)
    batch = shared.client.submit("may-fail", [{"value": 1, "fail": "chain"}])
    batch.wait(20)
    assert batch.retry_failed([]) == 0
    assert batch.retry_failed(["timeout"]) == 0
    assert batch.wait(20).status is BatchStatus.COMPLETED
    assert batch.retry_failed({"refusal"}) == 1
    batch.wait(20)


@pytest.mark.parametrize("chain", [None, 7, ["here"], str], ids=range(4))
def test_a_chain_itself_is_not_taken_for_its_name(traceless: Deployment, chain: Any) -> None:
    assert "the name that it is registered under" in refused(traceless, chain, [1])


@pytest.mark.parametrize("chain", ["", "\ud800", "a\nb", "*"], ids=range(4))
def test_a_name_that_no_chain_can_have_is_unknown(traceless: Deployment, chain: str) -> None:
    refused(traceless, chain, [1], error=ChainNotFound)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (["a", "a", "b"], "twice"),
        (["a", "b"], "no custom_id for input 2"),
        ([], "no custom_id for input 0"),
        (["a", "b", "c", "d"], "more custom_ids than the 3 inputs"),
        (["a", "", "c"], "custom_id of input 1"),
        (["a", "b", "c" * 513], "custom_id of input 2"),
        (["a", 7, "c"], "custom_id of input 1"),
        (["a", ["b"], "c"], "custom_id of input 1"),
        (["a", None, "c"], "custom_id for input 1"),
        (["a", "\ud800", "c"], "custom_id of input 1"),
        ("abc", "custom_ids"),
    ],
    ids=range(11),
)
def test_custom_ids_that_do_not_name_each_input_are_refused(
    traceless: Deployment, ids: Any, says: str
) -> None:
    assert says in refused(traceless, "here", [1, 2, 3], custom_ids=ids)


def test_a_custom_id_that_comes_again_far_behind_leaves_nothing(traceless: Deployment) -> None:
    ids = [str(i) for i in range(2999)] + ["7"]
    assert "'7' occurs twice" in refused(traceless, "here", range(3000), custom_ids=ids)
