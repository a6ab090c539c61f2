"""Whatever befalls Redis, work goes on by itself soon after, and nothing that was kept is lost."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.errors import LedgerUnavailable
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.harness import Deployment, Process, connect, refused, wait_until
from tests.support.judge import Journal, judge
from tests.support.proxy import Proxy
from tests.support.valkey import Server

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(90)

#: Leases and looks of the sweep are short, and so is the patience with a silent server.
QUICK = {"lease": 2.0, "sweep_interval": 0.2, "socket_timeout": 1.0, "shard_size": 20}
#: Seconds in which work must go on after the fault is over.
SOON = 15.0
#: Items in flight in each pool.
POOLS = {"asyncio": 4, "prefork": 2}


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """The network between the deployment and its server."""
    with Proxy(server.port) as proxy:
        yield proxy


@dataclass
class Work:
    """A deployment with one worker in the midst of a batch."""

    deployment: Deployment
    worker: Process
    batch: Batch
    total: int
    journal: Path
    #: What `results` and `as_completed` give to those who began to read before the fault.
    readers: list[Future[list[int]]]

    @property
    def started(self) -> int:
        return len(Journal.read(self.journal).started_at)

    def wait_started(self, count: int) -> None:
        """Return when this many items have been started; there must be many more."""
        wait_until(lambda: self.started >= count, what=f"{count} items are started")
        assert self.started < self.total * 0.8, "the fault would come too late"

    def goes_on(self) -> None:
        """From now on, all is well again: work must go on soon, and end as if nothing had been."""
        over = time.monotonic()

        def resumed() -> list[float]:
            return [at for at in Journal.read(self.journal).started_at if at > over]

        first = wait_until(resumed, what="work goes on", timeout=SOON)[0]
        self.batch.wait(30)
        verdict = judge(self.deployment.redis, self.batch, self.journal)
        assert verdict.good, verdict
        ended = time.monotonic()
        logger.info("went on after %.2f s, ended after %.2f s", first - over, ended - over)
        for reader in self.readers:
            assert sorted(reader.result(SOON)) == list(range(self.total))
        assert self.worker.alive, self.worker.log[-2000:]
        assert "Unrecoverable" not in self.worker.log


Begin = Callable[..., Work]


@pytest.fixture
def begin(deploy: Deploy, tmp_path: Path) -> Iterator[Begin]:
    """Start a worker on a server and submit a batch to it."""
    threads = ThreadPoolExecutor(2)
    register("work", lambda value: value, replace=True)

    def begin(
        server: Server,
        *,
        through: Proxy | None = None,
        pool: str = "asyncio",
        concurrency: int | None = None,
        total: int = 120,
        seconds: float = 0.04,
        **settings: Any,
    ) -> Work:
        deployment = deploy(url=(through or server).url, **(QUICK | settings))
        # What looks on from outside does not suffer from the network.
        deployment.redis.close()
        deployment.redis = connect(server.url)
        worker = deployment.start_worker(
            pool=pool,
            concurrency=concurrency or POOLS[pool],
            env={"BATCHORD_CHAINS": "tests.chains_for_tests.journal"},
        )
        journal = tmp_path / "journal"
        inputs = [{"index": i, "seconds": seconds, "journal": str(journal)} for i in range(total)]
        batch = deployment.client.submit("work", inputs)
        readers = [
            threads.submit(lambda stream: [item.index for item in stream()], stream)
            for stream in (batch.results, batch.as_completed)
        ]
        return Work(deployment, worker, batch, total, journal, readers)

    yield begin
    threads.shutdown(wait=False)


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    """Each kind of Celery pool."""
    return str(request.param)


def test_a_restart_that_loses_nothing_is_survived(server: Server, begin: Begin, pool: str) -> None:
    work = begin(server, pool=pool)
    work.wait_started(20)
    server.restart(down=1.0)
    assert server.starts == 2
    work.goes_on()
    assert "Connection to broker lost" in work.worker.log


def test_what_a_restart_has_lost_runs_again(server: Server, begin: Begin, pool: str) -> None:
    work = begin(server, pool=pool)
    work.wait_started(20)
    snapshot = server.snapshot()
    work.wait_started(50)
    wait_until(
        lambda: work.batch.record().request_counts.done >= 45, what="what is lost was recorded"
    )
    server.restart_from(snapshot)
    assert work.batch.record().request_counts.done < 45
    work.goes_on()
    assert work.started > work.total, "items run again whose outcomes were lost"


def test_a_full_server_refuses_batches_and_loses_none(
    server: Server, begin: Begin, pool: str
) -> None:
    work = begin(server, pool=pool)
    work.wait_started(20)
    server.limit_memory(1)
    wait_until(lambda: server.refused() >= 3, what="the worker is refused")
    message = refused(work.deployment, "work", [1], error=LedgerUnavailable)
    assert "is full" in message
    assert "maxmemory" in message
    done = work.batch.record().request_counts.done
    assert done < work.total
    settled = server.refused()
    wait_until(lambda: server.refused() > settled + 3, what="it stays full for a while")
    assert work.batch.record().request_counts.done == done
    server.limit_memory(0)
    work.goes_on()
    assert [record.id for record in work.deployment.client.list()] == [work.batch.id]


def test_a_stalled_server_is_waited_for(server: Server, begin: Begin, pool: str) -> None:
    work = begin(server, pool=pool)
    work.wait_started(20)
    server.stall()
    with pytest.raises(LedgerUnavailable):
        work.deployment.client.ping()  # three times a second
    started = work.started
    server.go_on()
    assert started < work.total
    work.goes_on()


def test_half_open_connections_are_given_up(
    server: Server, proxy: Proxy, begin: Begin, pool: str
) -> None:
    work = begin(server, through=proxy, pool=pool)
    work.wait_started(20)
    proxy.swallow()
    with pytest.raises(LedgerUnavailable):
        work.deployment.client.ping()
    assert proxy.counts.swallowed > 0
    proxy.heal()
    work.goes_on()


def test_reset_connections_are_made_again(
    server: Server, proxy: Proxy, begin: Begin, pool: str
) -> None:
    work = begin(server, through=proxy, pool=pool)
    work.wait_started(20)
    proxy.reset()
    wait_until(lambda: proxy.counts.resets >= 8, what="new connections are reset too")
    proxy.reset(0.3)
    before = proxy.counts.resets
    wait_until(lambda: proxy.counts.resets > before, what="some are reset, others are not")
    proxy.heal()
    work.goes_on()


def test_a_slow_network_slows_and_breaks_nothing(
    server: Server, proxy: Proxy, begin: Begin
) -> None:
    work = begin(server, through=proxy, concurrency=16, total=60)
    work.wait_started(5)
    proxy.slow(0.05)
    delayed = proxy.counts.delayed
    wait_until(lambda: proxy.counts.delayed > delayed + 10, what="what passes is late")
    work.goes_on()
    assert "Connection to broker lost" not in work.worker.log
