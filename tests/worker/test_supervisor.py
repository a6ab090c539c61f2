"""The supervisor keeps its workers running, and none of them outlives it."""

import os
import signal
from pathlib import Path

import pytest

from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.harness import Deployment, Process, lines_of, wait_until

pytestmark = pytest.mark.timeout(60)

#: Supervises two workers until it is told to stop, and says who is alive.
SUPERVISING = """
import signal, sys, threading
from batchord.worker.supervisor import Supervisor

supervisor = Supervisor(processes=2, concurrency=2, log_level="INFO", log=open(sys.argv[1], "wb"))
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
supervisor.start()
pids = []
while not ended.wait(0.05):
    if supervisor.pids != pids:
        pids = supervisor.pids
        print("pids", *pids, flush=True)
supervisor.stop()
print("stopped", flush=True)
"""


@pytest.fixture
def supervisor(deploy: Deploy, tmp_path: Path) -> tuple[Deployment, Process]:
    """A deployment with a supervisor of two workers, both ready."""
    deployment = deploy(lease=1.0, sweep_interval=0.2)
    script = tmp_path / "supervising.py"
    script.write_text(SUPERVISING)
    process = deployment.start_script(script, str(tmp_path / "workers.log"))
    wait_until(lambda: len(pids(process)) == 2, what="two workers are started")
    log = tmp_path / "workers.log"
    wait_until(lambda: log.read_text().count(" ready.") == 2, what="both are ready")
    return deployment, process


def pids(supervisor: Process) -> list[int]:
    """The workers' main processes, as the supervisor said last."""
    lines = [line for line in supervisor.log.splitlines() if line.startswith("pids")]
    return [int(pid) for pid in lines[-1].split()[1:]] if lines else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def running(deployment: Deployment, tmp_path: Path) -> Batch:
    """A batch of which four items run and wait for a gate."""
    paths = {"path": str(tmp_path / "starts"), "gate": str(tmp_path / "gate")}
    batch = deployment.client.submit("gated", [{"value": i, **paths} for i in range(6)])
    wait_until(lambda: len(lines_of(tmp_path / "starts")) == 4, what="four items run")
    return batch


def test_a_killed_worker_is_started_again_and_its_items_with_it(
    supervisor: tuple[Deployment, Process], tmp_path: Path
) -> None:
    deployment, process = supervisor
    batch = running(deployment, tmp_path)
    first, second = pids(process)
    os.kill(first, signal.SIGKILL)
    wait_until(
        lambda: len(pids(process)) == 2 and first not in pids(process), what="it is started again"
    )
    assert second in pids(process)
    (tmp_path / "gate").touch()
    assert batch.wait(20).request_counts.succeeded == 6
    process.stop()
    assert process.wait() == 0
    assert "stopped" in process.log
    assert not any(alive(pid) for pid in pids(process))


def test_workers_whose_supervisor_is_killed_end_what_they_run_and_leave(
    supervisor: tuple[Deployment, Process], tmp_path: Path
) -> None:
    deployment, process = supervisor
    batch = running(deployment, tmp_path)
    workers = pids(process)
    os.kill(process.pid, signal.SIGKILL)
    log = tmp_path / "workers.log"
    wait_until(lambda: log.read_text().count("soft shutdown") >= 2, what="both shut down")
    (tmp_path / "gate").touch()
    wait_until(lambda: not any(alive(pid) for pid in workers), what="both are gone")
    assert batch.record().request_counts.succeeded >= 4
    deployment.start_worker()
    assert batch.wait(20).request_counts.succeeded == 6
