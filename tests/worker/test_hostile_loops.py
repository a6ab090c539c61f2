"""Whatever a chain does to the event loop, it fails as itself and its neighbours succeed."""

import os
import signal
import time
from asyncio import CancelledError
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchord.chains import Lambda
from batchord.chains.composition.runnable import Runnable
from batchord.chains.runtime.loop_thread import default_loop
from batchord.ledger.models import Item
from batchord.producer import Batch
from tests.chains_for_tests import hostile
from tests.conftest import Deploy
from tests.support.crew import Crew
from tests.support.harness import CHAINS, Deployment, Process, lines_of, wait_until

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


@pytest.fixture(scope="module", params=["asyncio", "prefork"])
def hosts(deploy_for_module: Deploy, request: pytest.FixtureRequest) -> Deployment:
    deployment = deploy_for_module(sweep_interval=0.5)
    deployment.start_worker(
        concurrency=16 if request.param == "asyncio" else 4,
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


@pytest.fixture(scope="module")
def ended(hosts: Deployment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Batch, Path]:
    """A batch in which each harm is done, one after the other, beside a batch of neighbours."""
    path = tmp_path_factory.mktemp("harm") / "starts"
    others = [{"value": i, "seconds": 0.3, "path": str(path)} for i in range(NEIGHBOURS)]
    neighbours = hosts.client.submit("harm", others)
    guilty = [{"do": do, "value": do, "path": str(path)} for do in HARM]
    batch = hosts.client.submit("harm", guilty, max_concurrency=4)
    batch.wait(60)
    assert neighbours.outputs() == list(range(NEIGHBOURS))
    assert hosts.client.submit("harm", others).outputs() == list(range(NEIGHBOURS))
    return batch, path


@pytest.mark.parametrize("do", HARM)
def test_it_fails_as_itself_at_its_first_start(
    hosts: Deployment, worker: Process, ended: tuple[Batch, Path], do: str
) -> None:
    batch, path = ended
    item = list(batch.results())[list(HARM).index(do)]
    assert (item.error and item.error.code) == HARM[do]
    assert item.attempts == 1
    assert lines_of(path).count(do) == 1
    if do in TOLD:
        name = f"batch={batch.id} item={item.index}"
        assert any(TOLD[do] in line and name in line for line in worker.log.splitlines())


def test_their_neighbours_run_once(ended: tuple[Batch, Path]) -> None:
    starts = lines_of(ended[1])
    assert [starts.count(str(i)) for i in range(NEIGHBOURS)] == [2] * NEIGHBOURS


def test_a_fingerprint_that_raises_is_its_items_error(hosts: Deployment, worker: Process) -> None:
    [item] = hosts.client.submit("no-fingerprint", [{"value": 1}], cache=True).results()
    assert item.error is not None
    assert item.error.code == "LookupError"
    assert item.attempts == 1


@pytest.mark.parametrize("do", HARM)
def test_in_process_the_batch_returns(monkeypatch: pytest.MonkeyPatch, do: str) -> None:
    monkeypatch.setattr(hostile, "LONG", 0.2)
    chain: Runnable[object, object] = Lambda(hostile.harm)
    inputs = [{"value": i, "seconds": 0.3} for i in range(NEIGHBOURS)]
    raised = None
    try:
        outputs = chain.batch([*inputs, {"do": do, "value": "guilty"}], return_exceptions=True)
        assert outputs[:NEIGHBOURS] == list(range(NEIGHBOURS))
    except (SystemExit, KeyboardInterrupt, CancelledError) as error:
        raised = type(error).__name__
    assert raised in (None, HARM[do])
    assert default_loop().run(chain.ainvoke({"value": "still there"})) == "still there"


def test_a_neighbour_that_blocks_the_loop_costs_no_deadline(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(sweep_interval=0.5)
    worker = deployment.start_worker(
        concurrency=16, env={"BATCHORD_CHAINS": "tests.chains_for_tests.hostile"}
    )
    others = [{"value": i, "seconds": 0.5} for i in range(NEIGHBOURS)]
    batch = deployment.client.submit("harm-briefly", [*others, {"do": "block", "value": "guilty"}])
    assert batch.outputs()[:NEIGHBOURS] == list(range(NEIGHBOURS))
    wait_until(lambda: "event loop blocked for" in worker.log, what="the log names it")
    line = next(line for line in worker.log.splitlines() if "event loop blocked for" in line)
    assert f"batch={batch.id} item={NEIGHBOURS} step=harm in" in line
    assert "hostile.block" in line


def test_time_in_which_the_process_stood_still_costs_no_deadline(deploy: Deploy) -> None:
    deployment = deploy()
    worker = deployment.start_worker(
        concurrency=16, env={"BATCHORD_CHAINS": "tests.chains_for_tests.hostile"}
    )
    items = [{"value": i, "seconds": 0.5} for i in range(NEIGHBOURS)]
    batch = deployment.client.submit("harm-briefly", items)
    wait_until(lambda: batch.record().running == NEIGHBOURS, what="all run")
    os.kill(worker.pid, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(worker.pid, signal.SIGCONT)
    assert batch.outputs() == list(range(NEIGHBOURS))
    assert "exits with code" not in worker.log


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_what_blocks_the_loop_for_ever_is_quarantined_and_costs_nobody_an_attempt(
    deploy: Deploy, tmp_path: Path, pool: str
) -> None:
    deployment = deploy(sweep_interval=0.3, lease=1.5, loop_timeout=1.0)
    env = {"BATCHORD_CHAINS": "tests.chains_for_tests.hostile"}
    with Crew(deployment, pool=pool, concurrency=16 if pool == "asyncio" else 3, env=env) as crew:
        path = str(tmp_path / "starts")
        others = [{"value": i, "seconds": 2.5, "path": path} for i in range(NEIGHBOURS)]
        guilty = {"do": "block_for_ever", "value": "guilty", "path": path}
        batch = deployment.client.submit("harm", [guilty, *others])
        batch.wait(90)
        items: list[Item] = list(batch.results())
        first, rest = items[0], items[1:]
        assert first.error is not None
        assert first.error.code == "worker_lost"
        assert lines_of(tmp_path / "starts").count("guilty") == 3
        assert [item.output for item in rest] == list(range(NEIGHBOURS))
        assert {item.attempts for item in rest} == {1}
        assert f"blocked by batch={batch.id} item=0 step=harm in" in crew.log


def test_an_item_on_its_last_start_does_not_wait_for_the_slowest_of_its_process(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy(sweep_interval=0.3, lease=1.0, last_start_wait=0.5)
    starts, gate = tmp_path / "starts", tmp_path / "gate"
    env = {"BATCHORD_CHAINS": f"{CHAINS},tests.chains_for_tests.hostile"}
    with Crew(deployment, concurrency=8, env=env) as crew:
        guilty = {"do": "end_process", "value": "guilty", "path": str(starts)}
        batch = deployment.client.submit("harm", [guilty])
        wait_until(lambda: crew.replaced == 2, what="two have died", timeout=60)
        batch.pause()
        paths = {"path": str(tmp_path / "slow"), "gate": str(gate)}
        slow = deployment.client.submit("gated", [{"value": i, **paths} for i in range(4)])
        wait_until(lambda: len(lines_of(tmp_path / "slow")) == 4, what="the slow ones run")
        batch.resume()
        [item] = batch.results()
        assert item.error is not None
        assert item.error.code == "worker_lost"
        assert slow.record().request_counts.done == 0, "it has not waited for their end"
        gate.touch()
        assert slow.wait(60).request_counts.succeeded == 4
        assert {each.attempts for each in slow.results()} == {1}, "it has cost them no attempt"
        assert "an item on its last start must run alone" in crew.log
