"""LangChain alone, wrapped by us, our own chain, and on workers: equal, or different by name."""

from typing import Any

import pytest

from batchord.chains.composition.as_runnable import coerce
from batchord.ledger.errors import ItemNotSucceeded
from batchord.producer import RemoteRunnable
from tests.chains_for_tests.parity import ROWS, Row, registered_as
from tests.support.harness import Deployment

pytestmark = pytest.mark.timeout(120)


def comparable(result: Any) -> Any:
    """An output, or what an error says; arrays of JSON are lists."""
    if isinstance(result, ItemNotSucceeded):
        return f"{result.code}: {result.cause.message}"
    if isinstance(result, Exception):
        return f"{type(result).__name__}: {result}"
    return result


def outputs_of(name: str, row: Row, way: str, worker: Deployment) -> list[Any]:
    chain = {
        "langchain": lambda: row.langchain,
        "wrapped": lambda: coerce(row.langchain),
        "own": lambda: row.own,
        "remote": lambda: RemoteRunnable(registered_as(name), client=worker.client),
    }[way]()
    found = chain.batch(list(row.inputs), row.config, return_exceptions=True)
    return [comparable(each) for each in found]


WAYS = [
    (name, way)
    for name, row in ROWS.items()
    for way in ("wrapped", "own", "remote")
    if way != "own" or row.own is not None
]


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_a_chain_gives_what_langchain_gives(worker: Deployment, name: str, way: str) -> None:
    row = ROWS[name]
    expected = outputs_of(name, row, "langchain", worker)
    found = outputs_of(name, row, way, worker)
    assert len(found) == len(row.inputs)
    if way in row.differs:
        assert found != expected, f"no longer differs: take the reason out ({row.differs[way]})"
    else:
        assert found == expected
        assert [type(each) for each in found] == [type(each) for each in expected]
