"""Whatever a chain does to the event loop, it fails as itself and its neighbours succeed."""

from asyncio import CancelledError
from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.loop import default_loop
from chains.runnable import Runnable
from ledger.models import Item
from tests.chains_for_tests import hostile
from tests.conftest import Deploy
from tests.harness import Deployment, Process, lines_of

pytestmark = pytest.mark.timeout(120)

#: By what the chain does: the error of its item, None for none.
HARM = {
    "awaited_task": "SystemExit",
    "forgotten_task": "SystemExit",
    "interrupted_task": "KeyboardInterrupt",
    "gathered": "SystemExit",
    "grouped": "SystemExit",
    "callback": "SystemExit",
    "timer": "SystemExit",
    "langchain": "SystemExit",
    "langchain_parallel": "SystemExit",
    "stop": "loop_misused",
    "stop_in_callback": "loop_misused",
    "stop_from_thread": "loop_misused",
    "shut_executor": "loop_misused",
    "shut_generators": "loop_misused",
    "set_handler": "loop_misused",
    "close": "RuntimeError",
    "cancel_itself": "CancelledError",
    "cancel_itself_and_return": "CancelledError",
    "cancel_all": "CancelledError",
    "fail_in_background": None,
    "fail_in_callback": None,
}
#: Those that the process itself tells of, by what its log must say.
TOLD = {
    "forgotten_task": "raised SystemExit",
    "callback": "raised SystemExit",
    "fail_in_background": "ValueError in a background task",
    "fail_in_callback": "ValueError in a callback",
}
NEIGHBOURS = 12


@pytest.fixture(scope="module", params=["threads", "prefork"])
def hosts(deploy_for_module: Deploy, request: pytest.FixtureRequest) -> Deployment:
    deployment = deploy_for_module(sweep_interval=0.5)
    deployment.start_worker(
        concurrency=16 if request.param == "threads" else 4,
        pool=request.param,
        env={"BATCHORD_CHAINS": "tests.chains_for_tests.hostile"},
    )
    return deployment


@pytest.fixture
def worker(hosts: Deployment) -> Iterator[Process]:
    """The one worker, which must be alive after the test."""
    [worker] = hosts.processes
    yield worker
    assert worker.alive
    assert worker.log.count(" ready.") == 1
    assert hostile.SECRET not in worker.log


def among_neighbours(
    hosts: Deployment, chain: str, do: str | None, path: Path, *, cache: bool = False
) -> Item:
    """Run an item that does this beside its neighbours, who must succeed; return it."""
    guilty = {"do": do, "value": "guilty", "path": str(path)}
    others = [{"value": i, "seconds": 0.3, "path": str(path)} for i in range(NEIGHBOURS)]
    batch = hosts.client.submit("harm", others)
    item = next(iter(hosts.client.submit(chain, [guilty], cache=cache).results()))
    assert batch.outputs() == list(range(NEIGHBOURS))
    starts = lines_of(path)
    assert all(starts.count(str(i)) == 1 for i in range(NEIGHBOURS))
    return item


@pytest.mark.parametrize("do", HARM)
def test_it_fails_as_itself_at_its_first_start(
    hosts: Deployment, worker: Process, tmp_path: Path, do: str
) -> None:
    item = among_neighbours(hosts, "harm", do, tmp_path / "starts")
    assert (item.error and item.error.code) == HARM[do]
    assert item.attempts == 1
    assert lines_of(tmp_path / "starts").count("guilty") == 1
    if do in TOLD:
        line = next(line for line in worker.log.splitlines() if TOLD[do] in line)
        assert "batch=batch_" in line
        assert "item=0" in line


def test_a_fingerprint_that_raises_is_its_items_error(
    hosts: Deployment, worker: Process, tmp_path: Path
) -> None:
    item = among_neighbours(hosts, "no-fingerprint", None, tmp_path / "starts", cache=True)
    assert item.error is not None
    assert item.error.code == "LookupError"
    assert item.attempts == 1


@pytest.mark.parametrize("do", HARM)
def test_in_process_the_batch_returns(monkeypatch: pytest.MonkeyPatch, do: str) -> None:
    monkeypatch.setattr(hostile, "LONG", 0.2)
    chain: Runnable[object, object] = hostile.Lambda(hostile.harm)
    inputs = [{"value": i, "seconds": 0.3} for i in range(NEIGHBOURS)]
    raised = None
    try:
        outputs = chain.batch([*inputs, {"do": do, "value": "guilty"}], return_exceptions=True)
        assert outputs[:NEIGHBOURS] == list(range(NEIGHBOURS))
    except (SystemExit, KeyboardInterrupt, CancelledError) as error:
        raised = type(error).__name__
    assert raised in (None, HARM[do])
    assert default_loop().run(chain.ainvoke({"value": "still there"})) == "still there"
