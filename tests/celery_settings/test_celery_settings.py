"""Celery settings that users bring along: each works, or is refused as the worker starts."""

from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.lifecycle.diagnostics import Grade, checkup
from batchord.ledger.storage.batch_store import BatchStore
from tests.conftest import Deploy
from tests.support.harness import CHAINS, Deployment, Process, wait_until

pytestmark = pytest.mark.timeout(180)

#: Setting, value, and what the refusal says to do. Each is set by a chain module, all in one.
REFUSED: tuple[tuple[str, Any, str], ...] = (
    ("task_time_limit", 5, "BATCHORD_ITEM_TIMEOUT"),
    ("task_soft_time_limit", 5, "BATCHORD_ITEM_TIMEOUT"),
    ("task_always_eager", True, "leave it as it is"),
    ("task_acks_late", False, "leave it as it is"),
    ("task_acks_on_failure_or_timeout", False, "leave it as it is"),
    ("task_reject_on_worker_lost", False, "leave it as it is"),
    ("worker_deduplicate_successful_tasks", True, "leave it as it is"),
    ("task_serializer", "pickle", "leave it as it is"),
    ("accept_content", ["json", "pickle"], "leave it as it is"),
    ("result_backend", "rpc://", "elsewhere"),
    ("task_default_queue", "mine", "BATCHORD_QUEUE"),
    ("task_queues", None, "BATCHORD_QUEUE"),
    ("task_routes", {"batchord.*": {"queue": "mine"}}, "your own tasks"),
    ("broker_transport_options", {"visibility_timeout": 60}, "BATCHORD_VISIBILITY_TIMEOUT"),
)

#: Options of `celery worker`, and what the refusal says to do; all in one start.
REFUSED_OPTIONS: tuple[tuple[list[str], str, str], ...] = (
    (["--time-limit", "5"], "--time-limit", "BATCHORD_ITEM_TIMEOUT"),
    (["--soft-time-limit", "5"], "--soft-time-limit", "BATCHORD_ITEM_TIMEOUT"),
    (["-Q", "batchord,mine"], "-Q", "name all queues"),
    (["-P", "solo"], "-P", "BATCHORD_POOL"),
)

#: Settings that change nothing of a batch, or work.
HARMLESS: dict[str, Any] = {
    "result_expires": 1,
    "task_ignore_result": False,
    "task_track_started": True,
    "task_store_errors_even_if_ignored": True,
    "worker_prefetch_multiplier": 4,
    "worker_max_tasks_per_child": 2,
    "worker_max_memory_per_child": 1,
    "worker_send_task_events": True,
    "task_send_sent_event": True,
    "task_default_rate_limit": "1000/s",
    "task_routes": {"mine.*": {"queue": "mine"}},
    "worker_concurrency": 3,
    "worker_pool": "gevent",  # too late: Celery has chosen before it imports modules
}


def _module(deployment: Deployment, changes: dict[str, Any]) -> dict[str, str]:
    """Write a chain module that changes settings; return the environment that has it imported."""
    lines = ["from batchord.worker.app import app", f"app.conf.update({changes!r})"]
    (deployment.folder / "changes_settings.py").write_text("\n".join(lines))
    return {"BATCHORD_CHAINS": f"{CHAINS},changes_settings"}


def _refusals(worker: Process) -> list[str]:
    assert worker.wait(120) == 1
    lines = worker.log.strip().splitlines()
    assert all(line.startswith("Celery's ") for line in lines), worker.log
    return lines


def test_a_setting_that_breaks_batches_is_refused_at_start(deployment: Deployment) -> None:
    changes = {name: value for name, value, _ in REFUSED}
    changes["task_queues"] = ["batchord", "mine"]
    worker = deployment.start_worker(env=_module(deployment, changes), wait=False)
    lines = _refusals(worker)
    for name, _, cure in REFUSED:
        [line] = [line for line in lines if line.startswith(f"Celery's {name} ")]
        assert cure in line
    assert len(lines) == len(REFUSED)


def test_an_option_that_breaks_batches_is_refused_at_start(deployment: Deployment) -> None:
    options = [each for option, _, _ in REFUSED_OPTIONS for each in option]
    lines = _refusals(deployment.start(["batchord.worker", *options], "options"))
    for _, option, cure in REFUSED_OPTIONS:
        assert any(f"({option}" in line and cure in line for line in lines), option
    assert len(lines) == len(REFUSED_OPTIONS)


def test_a_process_is_not_scaled(deployment: Deployment) -> None:
    [line] = _refusals(deployment.start(["batchord.worker", "--autoscale", "4,1"], "autoscale"))
    assert "--concurrency" in line


@pytest.mark.parametrize(
    ("pool", "options"),
    [
        ("asyncio", ["-c", "0"]),
        ("prefork", ["--autoscale", "3,1", "--prefetch-multiplier", "2", "-O", "fair"]),
    ],
)
def test_a_batch_runs_whatever_else_is_set(deploy: Deploy, pool: str, options: list[str]) -> None:
    register("double", int, replace=True)
    deployment = deploy()
    env = _module(deployment, HARMLESS) | {"BATCHORD_POOL": pool}
    worker = deployment.start(["batchord.worker", *options, "-l", "INFO"], "harmless", env=env)
    deployment.wait_for_worker(worker)
    batch = deployment.client.submit("double", range(12))
    assert batch.outputs() == [2 * number for number in range(12)]
    assert list(deployment.redis.scan_iter("celery-task-meta*")) == []
    assert worker.alive


def test_doctor_names_what_was_changed_since_the_start(deployment: Deployment) -> None:
    register("changes", str, replace=True)
    (deployment.folder / "changes_later.py").write_text(
        "from batchord.chains import register\n"
        "def changes(value: str) -> str:\n"
        "    from batchord.worker.app import app\n"
        "    app.conf.worker_deduplicate_successful_tasks = True\n"
        "    return value\n"
        "register('changes', changes)\n"
    )
    deployment.start_worker(env={"BATCHORD_CHAINS": "changes_later"})
    store = BatchStore(deployment.settings)

    def says(words: str, grade: Grade) -> bool:
        # A worker that is busy may answer too late to be heard.
        found = [each for each in checkup(store) if each.what.startswith("Celery")]
        return any(words in each.what and each.grade is grade for each in found)

    wait_until(lambda: says("fit in 1 workers", Grade.OK), what="all is well", timeout=60)
    assert deployment.client.submit("changes", ["a"]).outputs() == ["a"]
    words = "worker_deduplicate_successful_tasks is True"
    wait_until(lambda: says(words, Grade.WARNING), what="it is named", timeout=60)
    store.close()
