"""The workers that are alive: what each is, has and does.

A worker's beat is in the ledger: it is written every few seconds and expires with its worker.
A child that it has forked beats for itself, and counts to its worker. `ChainRecord`s, which say
what a chain takes, are kept longer: producers may submit while no worker is up.
"""

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from batchord.chains import RegisteredChain, registered
from batchord.chains.specs.chain_spec import is_spec
from batchord.chains.steps.raw_request import REQUESTS
from batchord.ledger.storage.batch_store import BatchStore

#: Seconds between two beats of a worker.
BEATS_EVERY: Final = 4.0
#: Seconds that a worker is listed after its last beat.
KEPT: Final = 20.0
#: Seconds that an event loop may be late without a warning.
LATE: Final = 1.0

START: Final = "start one with `batchord worker --chains MODULE`, or `batchord up`"


class _Told(BaseModel):
    """A record that another process has written; what a newer version says more is not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ServedChain(_Told):
    """A chain as one worker has it."""

    #: As it was registered with; None: without one.
    version: str | None = None
    #: Of its module's file, types and settings (`RegisteredChain.digest`).
    digest: str = ""
    #: Environment variables that its calls need, and that the worker does not have.
    unset: tuple[str, ...] = ()

    @classmethod
    def of(cls, chain: RegisteredChain, environment: Mapping[str, str]) -> "ServedChain":
        """Return how a worker with this environment has the chain."""
        unset = tuple(chain.chain.unset(environment))
        return cls(version=chain.version, digest=chain.digest(), unset=unset)


def served_here() -> dict[str, ServedChain]:
    """Return the chains that are registered in this process, by name."""
    environment = dict(os.environ)
    return {name: ServedChain.of(each, environment) for name, each in registered().items()}


class Beat(_Told):
    """A worker, as it tells of itself."""

    #: Celery's name of it, NAME@HOST.
    name: str = ""
    #: Of Batchord.
    version: str = ""
    pool: str = ""
    #: When it started (UTC).
    since: datetime | None = None
    #: Items that it can run at a time, and items that it runs.
    slots: int = 0
    in_flight: int = 0
    #: Seconds that its event loop is late; None: it has run no item yet.
    loop_lag: float | None = None
    #: Celery queues that it takes from; none if it is drained.
    queues: tuple[str, ...] = ()
    chains: Mapping[str, ServedChain] = {}
    #: "host:pid" of its worker, if it is a forked child, which says no more than what it runs.
    child_of: str = ""


@dataclass(frozen=True)
class Fleet:
    """The workers that are alive, by "host:pid"."""

    workers: Mapping[str, Beat]
    #: How late the event loop of each process that runs items is, in seconds, by "host:pid".
    lags: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, beats: Mapping[str, Beat]) -> "Fleet":
        """Return the fleet of these beats, in which children count to their workers."""
        workers = {name: beat for name, beat in beats.items() if not beat.child_of}
        lags: dict[str, float] = {}
        for name, beat in beats.items():
            worker = workers.get(beat.child_of or name)
            if worker is None or beat.loop_lag is None:
                continue  # it has run nothing, or its worker is gone
            lags[name] = beat.loop_lag
            if beat.child_of:
                workers[beat.child_of] = worker.model_copy(
                    update={
                        "in_flight": worker.in_flight + beat.in_flight,
                        "loop_lag": max(worker.loop_lag or 0.0, beat.loop_lag),
                    }
                )
        return cls(workers, lags)

    def told(self) -> list[dict[str, Any]]:
        """Return what each worker has said, as JSON values, with its `process`, "host:pid"."""
        return [
            {"process": process, **beat.model_dump(mode="json", exclude={"child_of"})}
            for process, beat in sorted(self.workers.items())
        ]

    def serving(self, chain: str) -> list[ServedChain]:
        """Return the chain as each live worker that has it has it.

        Every worker has a chain that travels as data; it needs what the requests of a file need.
        """
        name = REQUESTS if is_spec(chain) else chain
        found = (each.chains.get(name) for each in self.workers.values())
        return [each for each in found if each is not None]

    def chains(self) -> list[str]:
        """Return the names of the chains that live workers have."""
        return sorted({name for each in self.workers.values() for name in each.chains})

    def trouble(self, chain: str | None = None) -> str:
        """Return why nothing of this chain can run now, and the cure; empty if it can.

        None: of any chain.
        """
        if not self.workers:
            return f"no worker is alive: {START}"
        if chain is None:
            return ""
        served = self.serving(chain)
        if not served:
            return (
                f"no live worker has chain {chain!r} (they have: {', '.join(self.chains())}): "
                "start them again with the module that registers it, in --chains or BATCHORD_CHAINS"
            )
        if all(each.unset for each in served):
            return f"chain {chain!r} cannot run: {lacks(served[0].unset)}, and start them again"
        return ""


def lacks(unset: Iterable[str], *, where: str = "for the workers") -> str:
    """Return what these environment variables that are not set mean, and the cure."""
    names = [*unset]
    parts = []
    if "OPENAI_MODEL" in names:
        parts.append("no model is named: set OPENAI_MODEL, or name one in Chat(...),")
    if "OPENAI_API_KEY" in names:
        parts.append("there is no API key: set OPENAI_API_KEY (any text without a service's key)")
    return f"{' and '.join(parts).rstrip(',')} {where}".rstrip()


def process_name(pid: int | None = None) -> str:
    """Return "host:pid" of a process of this host; None: of this process."""
    return f"{socket.gethostname()}:{os.getpid() if pid is None else pid}"


class FleetStore:
    """Writes a worker's beats, and reads who is alive."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._key = store.keys.fleet

    def beat(self, process: str, beat: Beat) -> None:
        """Record that the process "host:pid" is alive."""
        text = beat.model_dump_json(exclude_defaults=True)
        keys, ttl_ms = {"heard": self._key}, int(KEPT * 1000)
        self._store.transition("heartbeat", keys=keys, process=process, told=text, ttl_ms=ttl_ms)

    def leave(self, process: str) -> None:
        """Record that the process ends."""
        with self._store.talking():
            self._store.redis.hdel(self._key, process)

    def read(self) -> Fleet:
        """Return the workers that are alive."""
        with self._store.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(self._key)
            (seconds, _), found = self._store.replies(pipe)
        return Fleet.of(_alive(found, 1000 * (int(seconds) - KEPT)))


def _alive(found: Mapping[Any, Any], oldest: float) -> dict[str, Beat]:
    """Return the beats that are not older than this time, in milliseconds."""
    told = {str(name): str(text).partition(" ") for name, text in sorted(found.items())}
    return {name: _beat(text) for name, (heard, _, text) in told.items() if int(heard) >= oldest}


def _beat(text: str) -> Beat:
    try:
        return Beat.model_validate_json(text)
    except ValidationError:
        return Beat()  # of another version: it is alive, whatever it says
