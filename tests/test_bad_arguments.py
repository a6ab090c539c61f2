"""Arguments of a submission that cannot be used are refused in one line, and leave no trace."""

from collections.abc import Callable
from typing import Any

import pytest

from chains import ChainNotFound, register
from tests.harness import Deployment, refused

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", autouse=True)
def _chains() -> None:
    register("here", str, replace=True)


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


@pytest.mark.parametrize(
    ("read", "error", "says"),
    [
        (lambda batch: list(batch.items(-2)), ValueError, "start: an int of at least 0, not -2"),
        (lambda batch: list(batch.items(0, -1)), ValueError, "stop: an int of at least 0, not -1"),
        (lambda batch: list(batch.items("1")), TypeError, "start: an int of at least 0, not a str"),
        (lambda batch: list(batch.items(0, 1.5)), TypeError, "stop: an int of at least 0"),
        (lambda batch: list(batch.items(True)), TypeError, "start: an int of at least 0"),
        (lambda batch: batch.history(-1), ValueError, "index: an int of at least 0, not -1"),
        (lambda batch: batch.history(None), TypeError, "index: an int of at least 0"),
    ],
    ids=range(7),
)
def test_a_place_that_no_item_can_have_is_refused(
    deployment: Deployment, read: Callable[[Any], Any], error: type[Exception], says: str
) -> None:
    register("here", lambda value: value, replace=True)
    batch = deployment.client.submit("here", [1, 2, 3])
    with pytest.raises(error, match=says):
        read(batch)
    assert [item.index for item in batch.items(1, 10**9)] == [1, 2]
    assert list(batch.items(3)) == list(batch.items(2, 1)) == []
    batch.cancel()


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
