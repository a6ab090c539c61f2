"""The faults: each strikes a running batch, and tells what became of it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.core.message_ids import gather_task_id, task_id
from batchord.ledger.storage.batch_store import BatchStore
from batchord.producer import Batch
from chaos.gateway import kill_gateway
from chaos.ground import Ground, Run
from chaos.plain import plain_chord, revoked_plain_chord
from chaos.providers import bears_few, langchain_bears_few, langchain_outage, outage
from tests.support.copies import Copier
from tests.support.crew import takes, wait
from tests.support.judge import Journal

Try = Callable[[Ground], Run]


@dataclass(frozen=True)
class Scenario:
    """A fault, and where and how often it is tried."""

    name: str
    run: Try
    pools: tuple[str, ...] = ("asyncio", "prefork")
    runs: int = 1
    #: Starts of an item before it is taken for what kills its process. More where workers are
    #: killed from outside every other second: some items are hit three times.
    max_attempts: int = 3
    #: Starts that Redis may forget: one for each time that it loses what it was told last.
    forgotten: int = 0


def _wait(condition: Callable[[], bool], what: str, timeout: float = 120.0) -> None:
    if not wait(condition, timeout=timeout):
        raise TimeoutError(f"not within {timeout:g} s: {what}")


def _some_done(batch: Batch, more: int) -> None:
    """Return when this many more items are done, or the batch has ended."""
    until = batch.record().request_counts.done + more
    _wait(
        lambda: batch.record().request_counts.done >= until or batch.record().status.ended,
        "items are done",
    )


def kill_workers(ground: Ground) -> Run:
    """kill -9 of each of two workers, 20 times."""
    with ground.crew(2, 8) as crew:
        _wait(lambda: crew.ready, "the workers are ready")
        batch = ground.submit(ground.count(2000), 0.3)
        for _ in range(ground.times(20)):
            for place in (0, 1):
                _wait(partial(takes, crew, place), "the worker works")
                time.sleep(ground.random.random() * 0.4)
                if batch.record().status.ended:
                    break
                crew.kill(place)
                ground.strikes()
        return ground.end("kill -9 of each worker", batch)


def kill_children(ground: Ground) -> Run:
    """SIGKILL of a random child of a pool, 50 times."""
    with ground.crew(2, 4) as crew:
        _wait(lambda: crew.ready, "the workers are ready")
        batch = ground.submit(ground.count(2000), 0.15)
        for _ in range(ground.times(50)):
            _some_done(batch, ground.random.randint(1, 20))
            children = [pid for worker in crew.workers for pid in _children(worker.pid)]
            if batch.record().status.ended or not children:
                break
            os.kill(ground.random.choice(children), signal.SIGKILL)
            ground.strikes()
        return ground.end("SIGKILL of a child", batch)


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _poison(kind: str) -> Try:
    def run(ground: Ground) -> Run:
        """Three items of 200 end their process each time."""
        inputs = ground.inputs(ground.count(200), 0.02)
        failed = dict.fromkeys((3, len(inputs) // 2, len(inputs) - 1), "worker_lost")
        for index in failed:
            inputs[index]["poison"] = kind
        with ground.crew(2, 4) as crew:
            _wait(lambda: crew.ready, "the workers are ready")
            batch = ground.deployment.client.submit("work", inputs)
            run = ground.end(f"poison: {kind}", batch, failed=failed)
        starts = Journal.read(ground.journal).starts
        return replace(run, struck=sum(starts[index] for index in failed))

    return run


def restart_redis(ground: Ground) -> Run:
    """Redis is killed and comes back after a second with its append-only file, 10 times."""
    with ground.crew(2, 8):
        batch = ground.submit(ground.count(2000), 0.3)
        for _ in range(ground.times(10)):
            _some_done(batch, ground.random.randint(20, 100))
            if batch.record().status.ended:
                break
            ground.server.restart(down=1.0)
            ground.strikes()
        return ground.end("Redis restarted", batch)


def lose_the_last_second(ground: Ground) -> Run:
    """Redis comes back without what it was told last, as after a power cut, 5 times."""
    with ground.crew(2, 8):
        batch = ground.submit(ground.count(1000), 0.2)
        for _ in range(ground.times(5)):
            _some_done(batch, 40)
            if batch.record().status.ended:
                break
            snapshot = ground.server.snapshot()
            time.sleep(1.0)
            ground.server.restart_from(snapshot)
            ground.strikes()
        return ground.end("Redis lost its last second", batch)


#: Of a submission's inputs: where a snapshot is taken, and where the server goes back to it. The
#: first is from before the batch was opened.
_GOES_BACK: Final = ((0.0, 0.27), (0.42, 0.6), (0.62, 0.8), (0.82, 0.98))


def go_back_amid_a_submission(ground: Ground) -> Run:
    """Redis comes back without a fifth of a submission, 4 times; at first without all of it."""
    count = ground.count(5200)
    places = {int(count * back): int(count * taken) for taken, back in _GOES_BACK}
    snapshots = {}

    def inputs() -> Iterator[dict[str, Any]]:
        for n, value in enumerate(ground.inputs(count, 0.02)):
            if n in places.values():
                snapshots[n] = ground.server.snapshot()
            if n in places:
                ground.server.restart_from(snapshots[places[n]])
                ground.strikes()
            yield value

    with ground.crew(2, 8) as crew:
        _wait(lambda: crew.ready, "the workers are ready")
        batch = ground.deployment.client.submit("work", inputs())
        return ground.end("Redis went back during submit", batch)


def flush_the_broker(ground: Ground) -> Run:
    """All keys of Celery's are deleted: queues, what is not acknowledged, chords. 5 times."""
    redis = ground.deployment.redis
    with ground.crew(2, 8):
        batch = ground.submit(ground.count(1000), 0.1)
        for _ in range(ground.times(5)):
            _some_done(batch, 60)
            if batch.record().status.ended:
                break
            mine = ground.deployment.settings.namespace + ":"
            found = [key for key in redis.scan_iter(count=1000) if not key.startswith(mine)]
            if found:
                redis.delete(*found)
            ground.strikes()
        return ground.end("broker and chord keys deleted", batch)


def deliver_three_times(ground: Ground) -> Run:
    """Every message is delivered three times."""
    batch = ground.submit(ground.count(500), 0.05)
    with Copier(ground.deployment, copies=2) as copier:
        _wait(lambda: copier.copied > 0, "the first messages are copied")
        with ground.crew(2, 4):
            run = ground.end("each message three times", batch)
    return replace(run, struck=copier.copied)


def freeze(ground: Ground) -> Run:
    """A worker stands still for three leases and goes on: what it then says is refused."""
    with ground.crew(2, 4) as crew:
        _wait(lambda: crew.ready, "the workers are ready")
        batch = ground.submit(ground.count(200), 0.5)
        frozen = crew.workers[0]
        _wait(partial(_began, ground, frozen.pid, 4), "it has begun items")
        os.killpg(frozen.pid, signal.SIGSTOP)
        ground.strikes()
        time.sleep(3 * ground.deployment.settings.lease)
        os.killpg(frozen.pid, signal.SIGCONT)
        run = ground.end("worker frozen for three leases", batch)
        _wait(lambda: "late outcome refused" in crew.log, "a late outcome is refused")
        return run


def freeze_with_deadlines(ground: Ground) -> Run:
    """Both workers stand still for longer than the deadline of what runs in them, 3 times."""
    with ground.crew(2, 4) as crew:
        _wait(lambda: crew.ready, "the workers are ready")
        batch = ground.submit(ground.count(200), 1.0, chain="work-briefly")
        for _ in range(ground.times(3)):
            _some_done(batch, 8)
            if batch.record().status.ended:
                break
            frozen = [worker.pid for worker in crew.workers]
            for pid in frozen:
                os.killpg(pid, signal.SIGSTOP)
            time.sleep(2.5)  # less than a lease: each item must end where it began
            for pid in frozen:
                os.killpg(pid, signal.SIGCONT)
            ground.strikes()
        return ground.end("workers frozen beyond deadlines", batch)


def block_the_loop(ground: Ground) -> Run:
    """Three items of 200 block the event loop beyond the others' deadline, and one for ever."""
    inputs = ground.inputs(ground.count(200), 1.0)
    for index in (3, len(inputs) // 2, len(inputs) - 1):
        # With what a neighbour takes itself, longer than its deadline; and within the blocker's.
        inputs[index] |= {"poison": "block", "hold": 1.5, "seconds": 0.1}
    stuck = len(inputs) // 4
    inputs[stuck] |= {"poison": "block", "hold": 3600.0}
    with ground.crew(2, 4, env={"BATCHORD_LOOP_TIMEOUT": "5"}) as crew:
        _wait(lambda: crew.ready, "the workers are ready")
        batch = ground.deployment.client.submit("work-briefly", inputs)
        late = {stuck: "worker_lost"}
        run = ground.end("event loop blocked", batch, failed=late)
        _wait(lambda: "the event loop has not turned" in crew.log, "the watchdog says why")
    starts = Journal.read(ground.journal).starts
    return replace(run, struck=3 + starts[stuck])


def end_the_loop(ground: Ground) -> Run:
    """Ten items of 200 stop the event loop, or quit in a task of theirs."""
    inputs = ground.inputs(ground.count(200), 0.1)
    codes = {"stop": "loop_misused", "quit": "SystemExit"}
    failed = {}
    for number, index in enumerate(range(2, len(inputs), max(1, len(inputs) // 10))):
        poison = ("stop", "quit")[number % 2]
        inputs[index]["poison"], failed[index] = poison, codes[poison]
    with ground.crew(2, 4) as crew:
        _wait(lambda: crew.ready, "the workers are ready")
        batch = ground.deployment.client.submit("work", inputs)
        run = ground.end("event loop ended", batch, failed=failed)
        if crew.replaced:
            raise AssertionError("a worker has ended")
    return replace(run, struck=len(failed))


def _began(ground: Ground, pid: int, items: int) -> bool:
    """Whether items were begun in the worker of this process, or in its children."""
    pids = {str(each) for each in (pid, *_children(pid))}
    lines = ground.journal.read_text().splitlines() if ground.journal.exists() else []
    return sum(line.split()[0] == "start" and line.split()[2] in pids for line in lines) >= items


def revoke_all(ground: Ground) -> Run:
    """Every id of a running batch is revoked, and what runs is terminated too, 5 times."""
    app = create_app(ground.deployment.settings)
    total = ground.count(500)
    with ground.crew(2, 4) as crew:
        _wait(lambda: crew.ready, "the workers are ready")
        batch = ground.submit(total, 0.1, items_per_task=1)
        ids = [task_id(batch.id, range(index, index + 1)) for index in range(total)]
        ids += [gather_task_id(batch.id, shard) for shard in range(total)]
        for number in range(ground.times(5)):
            _some_done(batch, total // 10)
            if batch.record().status.ended:
                break
            app.control.revoke(ids, terminate=number % 2 == 1, reply=True, timeout=2)
            ground.strikes()
        run = ground.end("every task id revoked", batch)
    app.close()
    return run


def _sweeping(ground: Ground) -> int:
    """Return the pid of the worker that sweeps now; its lock lives for a moment."""
    key = BatchStore(ground.deployment.settings).keys.sweep
    until = time.monotonic() + 60
    while time.monotonic() < until:
        leader = ground.deployment.redis.get(key)
        if leader is not None:
            return int(str(leader).rsplit(":", 1)[1])
    raise TimeoutError("no worker has swept for 60 s")


def five_sweepers(ground: Ground) -> Run:
    """Five workers sweep as fast as they can, and the worker that sweeps is killed, 5 times."""
    with ground.crew(5, 2) as crew:
        _wait(lambda: crew.ready, "the workers are ready", 180)
        batch = ground.submit(ground.count(500), 0.2)
        for _ in range(ground.times(5)):
            _some_done(batch, 30)
            if batch.record().status.ended:
                break
            pid = _sweeping(ground)
            for place, worker in enumerate(crew.workers):
                if worker.pid == pid:
                    crew.kill(place)
                    ground.strikes()
        return ground.end("the sweeping one of five killed", batch)


def slow_and_broken(ground: Ground) -> Run:
    """200 ms each way, and every third second a tenth of the connections is reset, for 30 s."""
    with ground.crew(2, 8):
        batch = ground.submit(ground.count(500), 0.1)
        _some_done(batch, 20)
        ground.proxy.slow(0.2)
        for _ in range(ground.times(10)):
            time.sleep(3)
            ground.proxy.reset(0.1)
            ground.proxy.slow(0.2)
            ground.strikes()
        ground.proxy.heal()
        return ground.end("200 ms latency and resets", batch)


def _for_a_while(
    name: str, seconds: float, begin: Callable[[Ground], None], end: Callable[[Ground], None]
) -> Try:
    """A fault that lasts for this many seconds."""

    def run(ground: Ground) -> Run:
        with ground.crew(2, 4):
            batch = ground.submit(ground.count(300), 0.1)
            _some_done(batch, 40)
            begin(ground)
            time.sleep(seconds)
            end(ground)
            ground.strikes()
            return ground.end(name, batch)

    return run


stall = _for_a_while(
    "Redis stalled for 30 s", 30, lambda g: g.server.stall(), lambda g: g.server.go_on()
)
half_open = _for_a_while(
    "half-open network for 30 s", 30, lambda g: g.proxy.swallow(), lambda g: g.proxy.heal()
)
fill = _for_a_while(
    "Redis full for 15 s",
    15,
    lambda g: g.server.limit_memory(1),
    lambda g: g.server.limit_memory(0),
)


SCENARIOS: Final = (
    Scenario("kill-workers", kill_workers, runs=2, max_attempts=8),
    Scenario("kill-children", kill_children, pools=("prefork",)),
    Scenario("poison-exit", _poison("exit")),
    Scenario("poison-segv", _poison("segv")),
    Scenario("poison-memory", _poison("memory")),
    Scenario("restart-redis", restart_redis),
    Scenario("last-second", lose_the_last_second, forgotten=5),
    Scenario("submit-rollback", go_back_amid_a_submission, pools=("asyncio",)),
    Scenario("flush-broker", flush_the_broker),
    Scenario("three-times", deliver_three_times),
    Scenario("freeze", freeze),
    Scenario("freeze-deadlines", freeze_with_deadlines),
    Scenario("blocked-loop", block_the_loop),
    Scenario("dead-loop", end_the_loop),
    Scenario("five-sweepers", five_sweepers, pools=("asyncio",)),
    Scenario("stall", stall),
    Scenario("half-open", half_open),
    Scenario("slow-network", slow_and_broken, pools=("asyncio",)),
    Scenario("full", fill),
    Scenario("revoked-ids", revoke_all),
    Scenario("serve", kill_gateway, pools=("asyncio",)),
    Scenario("outage", outage),
    Scenario("bears-few", bears_few, pools=("asyncio",)),
    Scenario("langchain-outage", langchain_outage, pools=("asyncio",)),
    Scenario("langchain-bears-few", langchain_bears_few, pools=("asyncio",)),
    Scenario("plain-revoked", revoked_plain_chord, pools=("prefork",)),
    Scenario("plain-chord", plain_chord, pools=("prefork",), runs=3),
)
