"""Settings: one frozen value, read once from the environment and passed down."""

import json
import math
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from batchord.chains.errors import BatchordError
from batchord.ledger.core.redis_url import canonical

#: Written by `batchord up` beside its data, so that clients find the server that it runs.
SERVER_FILE = "server.json"


#: Queues that batches are spread over: that many batches run without waiting for another.
LANES = 4


class NoServer(BatchordError):
    """No Redis is configured, and `batchord up` is not running."""


class Settings(BaseSettings):
    """Everything that a deployment may choose, as `BATCHORD_<FIELD>` in the environment.

    Durations are seconds, sizes are bytes of UTF-8 JSON.
    """

    model_config = SettingsConfigDict(env_prefix="BATCHORD_", frozen=True, extra="ignore")

    redis_url: SecretStr | None = None
    """`redis://` or `rediss://` URL of broker, chord backend and ledger: one instance, so that a
    rollback of its data stays consistent. Unset: the server that `batchord up` runs."""

    home: Path = Path.home() / ".batchord"
    """Folder in which `batchord up` keeps its data and says on which port it listens."""

    namespace: str = Field(default="batchord", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """First part of every key of the ledger."""

    queue: str = Field(default="batchord", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """The Celery queue that items and gathers travel through; beside it stand `QUEUE.first` and
    `QUEUE.1` to `QUEUE.3`, for batches that run side by side."""

    chains: Annotated[tuple[str, ...], NoDecode] = ()
    """Modules that register chains, or paths to such (`./triage.py`), comma-separated; a worker
    imports them as it starts."""

    chains_only: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of the chains that a worker serves, comma-separated: it leaves batches of other
    registered chains to other workers. Unset: all that its modules register. Chains that travel as
    data, and files of requests, are served by every worker, unless this is set and the key or the
    model that they need is not."""

    pool: Literal["asyncio", "threads", "prefork"] = "asyncio"
    """The worker's pool: items wait side by side on the event loop (`asyncio`), each in a thread of
    Celery's pool (`threads`), or one in each forked child (`prefork`). Here and not by `-P`: Celery
    takes `-P prefork` for no choice at all."""

    shard_size: int = Field(default=100, ge=1, le=1000)
    """Tasks published together as one chord."""

    shards_in_flight: int = Field(default=10, ge=1, le=64)
    """Shards of a batch that are in the queue at a time, once the first ones are done: at least as
    many tasks as all workers together have in flight."""

    max_items: int = Field(default=10_000_000, ge=1)
    """Items of one batch."""

    max_input_bytes: int = Field(default=262_144, ge=1)
    """One input."""

    max_output_bytes: int = Field(default=1_048_576, ge=1)
    """One output."""

    item_timeout: float = Field(default=600.0, gt=0)
    """Deadline of one attempt, unless the chain was registered with its own."""

    max_attempts: int = Field(default=3, ge=1)
    """Starts of one item, each of which cost a process, before it fails as `worker_lost`."""

    outage_patience: float = Field(default=3600.0, ge=0)
    """Seconds to wait for a provider that is down before the batch pauses with its words: it
    answers every call with 5xx or 429, refuses connections, or does not answer. 0: it is not waited
    for, each item that meets it fails as its `retry` says."""

    alike_limit: int = Field(default=20, ge=0)
    """Number of first items of a batch, or after a resume, that pause it if all of them fail with
    the same code. 0: never."""

    prices: Path | None = None
    """A JSON file of what models cost, in US dollars per million tokens: `{"model": {"input": 2.5,
    "cached_input": 1.25, "output": 10}}`. A worker reads it as it starts. Unset: costs are
    unknown."""

    routes: Path | None = None
    """A TOML file of where requests go, by the model that they name: `[routes."llama-*"]` with
    `base_url`, and if need be `key_env` (the variable that has the key), `model` (its name there),
    `rpm`, `tpm` and `concurrency`. A worker reads it as it starts. A model without a route is the
    error of its request. Unset: all go to OPENAI_BASE_URL."""

    flower_payloads: bool = False
    """Let Flower's Batches pages show inputs, outputs and error messages, and let them be
    downloaded, by all users who may log in there. False: it reads none of them from Redis."""

    provider_poll: float = Field(default=30.0, gt=0)
    """In provider mode, seconds between two looks at how far the provider's batches are."""

    provider_requests: int = Field(default=50_000, ge=1, le=50_000)
    """Requests in one of the provider's batches, at most; OpenAI takes 50,000."""

    provider_bytes: int = Field(default=200_000_000, ge=10_000, le=200_000_000)
    """Size of one file of requests, at most; OpenAI takes 200 MB."""

    task_events: bool = False
    """Let workers report each task from their start on. Flower tells them to when it runs, and
    when it sees a new one; where nobody listens, reports are a fifth of a worker's time."""

    log_format: Literal["text", "json"] = "text"
    """Format of the logs of workers, supervisor, Flower and the command line: text, or a JSON
    object a line, with the batch that it is about."""

    webhook_url: SecretStr | None = None
    """URL to which workers post each batch's end, unless it was submitted with its own webhook. An
    https URL whose host is in `webhook_hosts`. Secret, as there may be a token in it."""

    webhook_secret: SecretStr | None = None
    """The secret that signs webhooks: `whsec_` and 24 to 64 bytes of base64. Two, separated by a
    space, sign both, while receivers change from the one to the other. Unset: nothing is sent."""

    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts that webhooks may go to, comma-separated, exactly so: `hooks.example.com`, or with a
    port other than 443 `hooks.example.com:8443`."""

    webhook_tries: int = Field(default=8, ge=1, le=20)
    """Tries of sending one webhook."""

    webhook_backoff: float = Field(default=5.0, gt=0)
    """Seconds between the first try and the second; each wait after is five times as long, give or
    take a tenth, a day at most. Eight tries take 27 hours."""

    webhook_timeout: float = Field(default=10.0, gt=0, le=120)
    """Longest that one try may take, from the look-up of the host to its answer."""

    webhook_allow_loopback: bool = False
    """For tests and development: receivers may be on loopback. Other addresses that are not public
    are refused all the same."""

    lease: float = Field(default=15.0, gt=0)
    """Seconds that an item stays claimed when its worker falls silent; renewed every quarter. What
    a dead worker held runs again after it and two sweeps, half a minute by default."""

    last_start_wait: float = Field(default=30.0, gt=0)
    """An item on its last start runs alone in its process; what runs there may take so long to end
    before, then it is handed back, and runs again at no cost of an attempt."""

    loop_timeout: float = Field(default=30.0, ge=1)
    """A worker process whose event loop has not turned for so long exits with code 70 and is
    started again: code of a chain blocks it, and everything else in the process waits. Time in
    which the whole process stood still does not count."""

    sweep_interval: float = Field(default=5.0, gt=0)
    """Seconds between two looks of the workers for what a crash left behind."""

    stall_timeout: float = Field(default=300.0, gt=0)
    """After this long without any progress on published items, they are published again even
    though the queue is not empty."""

    files: str | None = None
    """Place of the bytes of files that `batchord serve` is given: a folder, or a URL that fsspec
    knows (`s3://bucket/prefix`). Workers must reach it, too, as lines with large payloads are read
    from there. Unset: the folder `files` in `BATCHORD_HOME`."""

    file_max_bytes: int = Field(default=200_000_000, ge=1)
    """One uploaded file; OpenAI takes 200 MB for a batch."""

    file_max_lines: int = Field(default=50_000, ge=1)
    """Requests in one uploaded file; OpenAI takes 50,000."""

    file_line_bytes: int = Field(default=20_000_000, ge=1)
    """One line of an uploaded file: pictures come as base64."""

    file_inline_bytes: int = Field(default=65_536, ge=1)
    """A line of an uploaded file above this size is not copied to Redis: workers read it from the
    file store."""

    file_ttl: int = Field(default=30 * 24 * 3600, ge=1)
    """Seconds to keep an uploaded file that came without `expires_after`; OpenAI: 30 days."""

    submit_timeout: float = Field(default=60.0, gt=0)
    """A producer whose heartbeat is silent for so long before the seal counts as dead: its batch is
    aborted and its idempotency key may be taken over. How long it waits for an input is its own."""

    shutdown_grace: float = Field(default=20.0, ge=0)
    """Seconds that items may go on when a worker is told to stop; then they go back. Keep the
    time between SIGTERM and SIGKILL 10 s above it (`stop_grace_period` in docker-compose.yml)."""

    result_ttl: int = Field(default=7 * 24 * 3600, ge=1)
    """Seconds that a batch stays readable after its end."""

    cache_ttl: int = Field(default=7 * 24 * 3600, ge=1)
    """Seconds that an output is kept for later batches, once one was submitted with `cache`."""

    visibility_timeout: int = Field(default=3600, ge=1)
    """Celery's redelivery of unacknowledged messages; the leases recover sooner."""

    socket_timeout: float = Field(default=10.0, gt=0)
    """A Redis call that is silent for so long has failed."""

    @field_validator("chains", "chains_only", "webhook_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_names(value) if isinstance(value, str) else value

    @property
    def files_url(self) -> str:
        """Where uploaded files lie: a folder or a URL."""
        return self.files or str(self.home / "files")

    @property
    def unsealed_ttl(self) -> int:
        """Seconds after which what a dead producer has left expires; heartbeats renew it."""
        return max(self.result_ttl, math.ceil(4 * self.submit_timeout))

    @property
    def queues(self) -> tuple[str, ...]:
        """The queue for what batches begin with, and the lanes for all else (`lane`)."""
        return f"{self.queue}.first", *map(self.lane, range(LANES))

    def lane(self, number: int) -> str:
        """Return the queue of a lane; gathers travel through the first lane, too."""
        return f"{self.queue}.{number}" if number else self.queue

    def url(self) -> str:
        """Return the Redis URL, password included: `redis_url`, else the server of `batchord up`.

        In the form that every client reads alike; see `batchord.ledger.core.redis_url`.

        Raises:
            BadRedisURL: `redis_url` cannot be used; the message says what to write.
            NoServer: neither is there.
        """
        if self.redis_url is not None:
            return canonical(self.redis_url.get_secret_value())
        try:
            return str(json.loads((self.home / SERVER_FILE).read_text())["url"])
        except (OSError, ValueError, KeyError):
            raise NoServer(
                "no Redis: set BATCHORD_REDIS_URL, or start one here with `batchord up`"
            ) from None


def split_names(text: str | None) -> tuple[str, ...]:
    """Return the names of a comma-separated list; none of None."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def misspelt(environment: Mapping[str, str]) -> list[str]:
    """Return a line for each variable whose name is nearly a setting's: it has no effect."""
    known = [f"BATCHORD_{name.upper()}" for name in Settings.model_fields]
    names = [each for each in environment if each.startswith("BATCHORD_") and each not in known]
    near = {name: get_close_matches(name, known, n=1, cutoff=0.85) for name in names}
    return [
        f"{name} is not a setting and has no effect: {found[0]}?"
        for name, found in near.items()
        if found
    ]
