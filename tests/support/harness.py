"""Real servers and real processes for tests: Valkey, workers and Flower, and waiting for them.

A `Deployment` is one database of the session's Valkey, so that nothing of one test is seen by
another: not the ledger, and not Celery's queues, events and control messages either.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from batchord.chains import BatchordError
from batchord.ledger.core.message_ids import lists_of
from batchord.ledger.errors import SubmitRefused
from batchord.ledger.settings import Settings
from batchord.producer import Batch, Client
from tests.support.fork_server import Forked, ForkServer, can_fork
from tests.support.openai_server import OpenAIServer
from tests.support.waiting import wait_until as wait_until

CHAINS = "tests.chains_for_tests.basic"

#: Lines of a log that a failed test shows.
LOG_TAIL = 60

#: Keys that stay: the ledger's indexes, and what Celery's broker keeps.
PERMANENT = (
    *(
        "{ns}:batches",
        "{ns}:active",
        "{ns}:outbox-due",
        "{ns}:chains",
        "{ns}:tasks",
        "{ns}:used",
        "{ns}:totals",
        "{ns}:repairs",
        "{ns}:api:bytes",
        "{ns}:api:validating",
    ),
    *("unacked", "unacked_index"),
)


#: Forks the workers and commands of this process of tests.
fork_server = ForkServer()


class Process:
    """A process of its own process group, with its output in a file."""

    def __init__(self, argv: Sequence[str], *, env: dict[str, str], cwd: Path, log: Path) -> None:
        self.log_file = log
        self._popen = _new_process(argv, env, cwd, log)
        self.pid = self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the process to end and return its exit code."""
        return self._popen.wait(timeout)

    def stop(self) -> None:
        """Ask the main process to end: a worker's soft shutdown."""
        self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 the whole process group."""
        if group_exists(self.pid):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


def _new_process(
    argv: Sequence[str], env: dict[str, str], cwd: Path, log: Path
) -> subprocess.Popen[bytes] | Forked:
    with log.open("wb") as output, Path(os.devnull).open("rb") as nothing:
        if can_fork(argv, env):
            files = [nothing.fileno(), output.fileno(), output.fileno()]
            return fork_server.start(argv, env=env, cwd=cwd, files=files)
        return subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=nothing,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def group_exists(pid: int) -> bool:
    """Whether a process group still has a process."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def provider_env(provider: OpenAIServer) -> dict[str, str]:
    """The environment that points a worker to the provider."""
    return {
        "OPENAI_API_KEY": "sk-test-0123456789",
        "OPENAI_BASE_URL": provider.base_url,
        "OPENAI_MODEL": "test-model",
    }


class Deployment:
    """One database of the server, with settings, a client and processes of its own."""

    def __init__(self, url: str, folder: Path, **settings: Any) -> None:
        self.url = url
        self.folder = folder
        self.settings = Settings(redis_url=SecretStr(url), **settings)
        self.client = Client(settings=self.settings)
        self.redis = connect(url)
        self.processes: list[Process] = []

    def env(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """The environment of a process of this deployment: our settings, no OPENAI_*."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("BATCHORD_", "OPENAI_"))}
        env |= {"BATCHORD_REDIS_URL": self.url, "BATCHORD_CHAINS": CHAINS}
        for name in self.settings.model_fields_set - {"redis_url"}:
            env[f"BATCHORD_{name.upper()}"] = str(getattr(self.settings, name))
        return env | (extra or {})

    def start(
        self, argv: Sequence[str], name: str, *, env: dict[str, str] | None = None
    ) -> Process:
        """Start `python -m argv` in this deployment's folder and environment; it dies with it."""
        return self._start(["-m", *argv], name, env)

    def start_script(
        self, script: Path, *arguments: str, env: dict[str, str] | None = None
    ) -> Process:
        """Start a Python script, as `start` does."""
        return self._start([str(script), *arguments], script.stem, env)

    def _start(self, argv: Sequence[str], name: str, env: dict[str, str] | None) -> Process:
        log = self.folder / f"{name}-{len(self.processes)}.log"
        process = Process(
            [sys.executable, "-P", *argv], env=self.env(env), cwd=self.folder, log=log
        )
        self.processes.append(process)
        return process

    def start_worker(
        self,
        *,
        concurrency: int = 8,
        pool: str = "asyncio",
        log_level: str = "INFO",
        env: dict[str, str] | None = None,
        wait: bool = True,
    ) -> Process:
        """Start a worker process; by default, return when it takes messages."""
        name = f"w{len(self.processes)}"
        worker = self.start(
            [
                *("batchord.worker", "-c", str(concurrency), "-l", log_level, "-n", f"{name}@%h"),
                # As the supervisor starts them; it saves a second at every start.
                *("--without-gossip", "--without-mingle"),
            ],
            "worker",
            env={"BATCHORD_POOL": pool, **(env or {})},
        )
        if wait:
            self.wait_for_worker(worker)
        return worker

    def wait_for_worker(self, worker: Process) -> None:
        """Return when the worker takes messages."""
        wait_until(
            lambda: " ready." in worker.log or not worker.alive,
            what="the worker is ready",
            timeout=90,
        )
        assert worker.alive, f"the worker ended at once:\n{worker.log}"

    def queued(self) -> int:
        """How many messages wait in the queues."""
        return sum(self.redis.llen(name) for name in self.lists())

    def waiting(self) -> list[str]:
        """The messages in the queues, the newest first, queue by queue."""
        return [text for name in self.lists() for text in self.redis.lrange(name, 0, -1)]

    def lose_messages(self) -> int:
        """Delete all that waits in the queues; return how many lists there were."""
        return int(self.redis.delete(*self.lists()))

    def lists(self) -> list[str]:
        """The lists of the queues, of all priorities, those of what was put apart among them."""
        apart = self.redis.hkeys(f"{self.settings.namespace}:apart")
        return [name for queue in (*self.settings.queues, *apart) for name in lists_of(queue)]

    def keys_of(self, batch: Batch | str) -> list[str]:
        """All keys whose name holds the batch's id, the ledger's and Celery's."""
        batch_id = batch if isinstance(batch, str) else batch.id
        return sorted(str(key) for key in self.redis.scan_iter(f"*{batch_id}*", count=1000))

    def leaks(self) -> list[str]:
        """Keys that would stay for ever: no time to live, no live batch, and not permanent."""
        ns = self.settings.namespace
        live = set(self.redis.zrange(f"{ns}:active", 0, -1))
        permanent = {name.format(ns=ns) for name in PERMANENT} | set(self.lists())
        found = []
        for key in self.redis.scan_iter(count=1000):
            if key in permanent or key.startswith("_kombu.") or ".pidbox" in key:
                continue
            if self.redis.ttl(key) != -1 or any(batch_id in key for batch_id in live):
                continue
            if key.startswith(f"{ns}:key:") and self.redis.get(key) in live:
                continue
            found.append(key)
        return sorted(found)

    def check_leaks(self) -> None:
        """Fail if keys would stay for ever; what a commit is about to end is waited for."""
        wait_until(lambda: not self.leaks(), what=f"no key leaks, of {self.leaks()}", timeout=3)

    def logs(self) -> Iterable[tuple[str, str]]:
        """Name and last lines of each process's log."""
        for process in self.processes:
            lines = process.log.splitlines()
            yield process.log_file.name, "\n".join(lines[-LOG_TAIL:])

    def close(self) -> None:
        """Kill what was started here, and close the connections."""
        for process in self.processes:
            process.kill()
        self.client.close()
        self.redis.close()


def connect(url: str) -> Any:
    """A plain connection of the test's own, to look at the server from outside."""
    return redis.Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0))


def lines_of(path: Path) -> list[str]:
    """The lines that `chains_for_tests.basic.write_line` wrote so far."""
    return path.read_text().splitlines() if path.exists() else []


def refused(
    deployment: Deployment,
    chain: str,
    inputs: Any,
    *,
    error: type[BatchordError] = SubmitRefused,
    **options: Any,
) -> str:
    """Submit, and return the message of the error, which must be of one line."""
    with pytest.raises(error) as caught:
        deployment.client.submit(chain, inputs, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message
