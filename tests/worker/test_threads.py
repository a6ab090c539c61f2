"""Background threads outlive the errors of one round: each next thread is one line of a table."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.storage.item_transitions import ClaimRequest
from batchord.worker.execution.worker_context import WorkerContext
from batchord.worker.maintenance.sweep import Sweep
from batchord.worker.notifications.dispatcher import Dispatcher
from batchord.worker.provider_batch.poller import Poller
from batchord.worker.supervisor import Supervisor
from tests.support.waiting import wait_until

#: What one round may raise: no error of ours, one that ends threads, one of the system.
RAISED = (KeyError("secret input"), SystemExit(1), OSError("no more processes"))


class Trouble:
    """Raises each error once, in place of a call, then makes the call."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self._errors = list(RAISED)
        self.made = threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._errors:
            raise self._errors.pop(0)
        self.made.set()
        return self._call(*args, **kwargs)


@pytest.fixture
def runtime(deployment: Any) -> WorkerContext:
    settings = deployment.settings.model_copy(update={"lease": 0.2, "sweep_interval": 0.05})
    return WorkerContext(settings, app=create_app(settings))


def of_leases(runtime: WorkerContext, patch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    leases = runtime.leases
    trouble = Trouble(leases._item_leases.beat_all)
    patch.setattr(leases._item_leases, "beat_all", trouble)
    leases.hold([ClaimRequest(batch_id="batch_" + "0" * 24, index=0, token="t")])
    yield trouble
    leases.stop()


def of_stopping(runtime: WorkerContext, patch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    leases = runtime.leases
    trouble = Trouble(leases._item_leases.stopping)
    patch.setattr(leases._item_leases, "stopping", trouble)
    patch.setattr(leases._item_leases, "beat_all", lambda *_: {})
    leases.hold([ClaimRequest(batch_id="batch_" + "0" * 24, index=0, token="t")])
    yield trouble
    leases.stop()


def of_sweep(runtime: WorkerContext, patch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    sweep = Sweep(runtime._app, runtime)
    trouble = Trouble(sweep.turn)
    patch.setattr(sweep, "turn", trouble)
    sweep.start()
    yield trouble
    sweep.stop()


def of_outbox(runtime: WorkerContext, patch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    dispatcher = Dispatcher(runtime._app, runtime)
    trouble = Trouble(dispatcher._outbox.due)
    patch.setattr(dispatcher._outbox, "due", trouble)
    dispatcher.start()
    yield trouble
    dispatcher.stop()


def of_poller(runtime: WorkerContext, patch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    poller = Poller(runtime._app, runtime)
    trouble = Trouble(lambda _: None)
    patch.setattr(poller, "_look", trouble)
    for number in range(len(RAISED) + 1):
        poller.name(f"batch_{number:024}")
    yield trouble
    poller.stop()


def of_supervisor(runtime: WorkerContext, patch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    trouble = Trouble(_idle)
    patch.setattr("batchord.worker.supervisor.subprocess.Popen", trouble)
    patch.setattr("batchord.worker.supervisor._BACKOFF", (0.05, 0.2))
    supervisor = Supervisor(processes=1, concurrency=1, grace=5)
    supervisor.start()
    yield trouble
    supervisor.stop()


def _idle(*_: Any, **options: Any) -> "subprocess.Popen[bytes]":
    return _Popen([sys.executable, "-c", "input()"], **options)


_Popen = subprocess.Popen


@pytest.mark.parametrize(
    "thread", [of_leases, of_stopping, of_sweep, of_outbox, of_poller, of_supervisor]
)
def test_a_round_that_fails_costs_no_thread(
    runtime: WorkerContext,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    thread: Callable[..., Iterator[Trouble]],
) -> None:
    running = thread(runtime, monkeypatch)
    trouble = next(running)
    assert trouble.made.wait(30), "the thread goes on"
    assert next(running, None) is None
    for error in RAISED:
        assert f"failed: {type(error).__name__}" in caplog.text
    assert "secret input" not in caplog.text


def test_a_second_worker_that_cannot_be_started_is_started_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def second_fails(*args: Any, **options: Any) -> "subprocess.Popen[bytes]":
        calls.append(args)
        if len(calls) == 2:
            raise OSError("no memory")
        return _idle(*args, **options)

    monkeypatch.setattr("batchord.worker.supervisor.subprocess.Popen", second_fails)
    monkeypatch.setattr("batchord.worker.supervisor._BACKOFF", (0.05, 0.2))
    supervisor = Supervisor(processes=3, concurrency=1, grace=5)
    supervisor.start()
    try:
        wait_until(lambda: len(supervisor.pids) == 3, what="all three run")
    finally:
        supervisor.stop()
    assert len(calls) == 4
