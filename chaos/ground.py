"""The ground of one run: a server, a deployment on it, workers, and one batch."""

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from batchord.chains import register
from batchord.producer import Batch
from tests.support.crew import Crew
from tests.support.harness import Deployment
from tests.support.judge import Verdict, judge
from tests.support.proxy import Proxy
from tests.support.valkey import Server

#: Leases are short, so that a run takes minutes and not hours; all else is as it is by default.
SETTINGS: Final = {"lease": 3.0, "sweep_interval": 0.5, "socket_timeout": 5.0}
#: Seconds after the last fault in which a batch must end; many times what is allowed.
PATIENCE: Final = 180.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """The end of one batch."""

    fault: str
    pool: str
    #: How often the fault struck.
    struck: int
    verdict: Verdict
    #: From the last fault to the end of the batch.
    seconds: float
    #: It must be found broken: the judge can see it.
    meant_to_fail: bool = False


@dataclass
class Ground:
    """A deployment of its own, and what the fault's author does to it."""

    folder: Path
    server: Server
    proxy: Proxy
    deployment: Deployment
    pool: str
    scale: float
    max_attempts: int
    forgotten: int
    random: random.Random
    struck: int = 0
    _last: float = field(default_factory=time.monotonic)

    @property
    def journal(self) -> Path:
        """Where items leave their lines."""
        return self.folder / "journal"

    def count(self, items: int) -> int:
        """This many items at this scale."""
        return max(40, round(items * self.scale))

    def times(self, faults: int) -> int:
        """This many faults at this scale."""
        return max(1, round(faults * self.scale))

    def crew(self, size: int, concurrency: int, **options: Any) -> Crew:
        """Workers of this deployment, kept running."""
        return Crew(self.deployment, size=size, pool=self.pool, concurrency=concurrency, **options)

    def inputs(self, count: int, seconds: float) -> list[dict[str, Any]]:
        """Inputs of `work`, each of which takes so long."""
        common = {"journal": str(self.journal), "seconds": seconds}
        return [{"index": index, **common} for index in range(count)]

    def submit(self, count: int, seconds: float, *, chain: str = "work", **options: Any) -> Batch:
        """Submit a batch of `work`, or of `work-briefly`, whose items have 2 s."""
        return self.deployment.client.submit(chain, self.inputs(count, seconds), **options)

    def strikes(self) -> None:
        """Note that the fault has struck just now."""
        self.struck += 1
        self._last = time.monotonic()

    def end(self, fault: str, batch: Batch, *, failed: Mapping[int, str] | None = None) -> Run:
        """Wait for the end of the batch, and have it judged."""
        batch.wait(PATIENCE)
        seconds = time.monotonic() - self._last
        verdict = judge(
            self.deployment.redis,
            batch,
            self.journal,
            max_attempts=self.max_attempts + self.forgotten,
            failed=failed,
        )
        return Run(
            fault=fault, pool=self.pool, struck=self.struck, verdict=verdict, seconds=seconds
        )


@contextmanager
def ground(
    folder: Path, *, pool: str, scale: float, seed: int, max_attempts: int = 3, forgotten: int = 0
) -> Iterator[Ground]:
    """Open a ground with a server, and a network in between; nothing of it is left behind."""
    folder.mkdir(parents=True)
    register("work", _same, replace=True)
    register("work-briefly", _same, replace=True)
    with Server(folder) as server, Proxy(server.port) as proxy:
        deployment = Deployment(proxy.url, folder, max_attempts=max_attempts, **SETTINGS)
        # The judge looks past the network.
        deployment.redis.close()
        deployment.redis = connect(server)
        try:
            yield Ground(
                folder,
                server,
                proxy,
                deployment,
                pool,
                scale,
                max_attempts,
                forgotten,
                random.Random(seed),
            )
        finally:
            deployment.close()


def connect(server: Server) -> Any:
    """A patient connection to the server itself."""
    import redis

    return redis.Redis.from_url(server.url, decode_responses=True)


def _same(value: Any) -> Any:
    return value
