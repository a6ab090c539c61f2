"""The workers that are alive: what each is, has and does.

A child that a worker has forked beats for itself, and counts to its worker. `fleet_store` writes
and reads this.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from batchord.chains import RegisteredChain, registered
from batchord.chains.steps.raw_request import REQUESTS
from batchord.ledger.needs import FORMAT, Needs

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


def served_here(only: Collection[str] = ()) -> dict[str, ServedChain]:
    """Return the chains that a worker of this process serves, by name.

    `only`: the names of `Settings.chains_only`; without any, all that are registered.
    """
    environment = dict(os.environ)
    here = {name: ServedChain.of(each, environment) for name, each in registered().items()}
    return {
        name: each
        for name, each in here.items()
        if not only or name in only or (name == REQUESTS and not each.unset)
    }


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
    #: Formats of batches that it serves.
    formats: tuple[int, ...] = (1,)
    chains: Mapping[str, ServedChain] = {}
    #: "host:pid" of its worker, if it is a forked child, which says no more than what it runs.
    child_of: str = ""

    def serves(self, needs: Needs) -> bool:
        """Whether it works on batches, and takes messages, that need this."""
        if needs.format not in self.formats:
            return False
        return needs.chain is None or self.chain_for(needs) is not None

    def chain_for(self, needs: Needs) -> ServedChain | None:
        """Return the chain as it has it, in the version that is needed, or None."""
        found = self.chains.get(needs.chain or "")
        fits = found is not None and needs.version in (None, found.version)
        return found if fits else None


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

    def serving(self, what: str | Needs) -> list[ServedChain]:
        """Return the chain as each live worker that serves it has it.

        `what`: a chain's name, or what a batch needs. A chain that travels as data needs what the
        requests of a file need.
        """
        needs = _needs(what)
        found = (each.chain_for(needs) for each in self.workers.values() if each.serves(needs))
        return [each for each in found if each is not None]

    def serves_all(self, needs: Needs) -> bool:
        """Whether each live worker serves what needs this."""
        return all(each.serves(needs) for each in self.workers.values())

    def latest_version(self, chain: str) -> str | None:
        """Return the chain's version of the worker that started last; None: without one.

        While a version is rolled out, forwards or back, that is the one that will stay.
        """
        having = [each for each in self.workers.values() if chain in each.chains]
        latest = max(having, key=_start, default=None)
        return None if latest is None else latest.chains[chain].version

    def chains(self) -> list[str]:
        """Return the names of the chains that live workers have."""
        return sorted({name for each in self.workers.values() for name in each.chains})

    def trouble(self, what: str | Needs | None = None) -> str:
        """Return why nothing of this chain, or of what needs this, can run now, and the cure.

        Empty if it can. None: of any chain.
        """
        if not self.workers:
            return f"no worker is alive: {START}"
        if what is None:
            return ""
        needs = _needs(what)
        if not any(needs.format in each.formats for each in self.workers.values()):
            return self._no_format(needs.format)
        served = self.serving(needs)
        if not served:
            return self._no_chain(needs)
        if all(each.unset for each in served):
            return (
                f"chain {needs.chain!r} cannot run: {lacks(served[0].unset)}, and start them again"
            )
        return ""

    def _no_format(self, format_: int) -> str:
        versions = {each.version or "unknown" for each in self.workers.values()}
        newest = max(max(each.formats, default=0) for each in self.workers.values())
        cure = "replace them by newer ones" if newest < format_ else "start one that is older"
        return (
            f"no live worker serves batches of format {format_} (they are of Batchord "
            f"{', '.join(sorted(versions))}): {cure}"
        )

    def _no_chain(self, needs: Needs) -> str:
        chain = needs.chain or ""
        having = [each.chains[chain] for each in self.workers.values() if chain in each.chains]
        if having:
            versions = sorted({each.version or "none" for each in having})
            return (
                f"no live worker has version {needs.version!r} of chain {chain!r} (they have "
                f"{', '.join(versions)}): start one that has it, or submit again"
            )
        return (
            f"no live worker has chain {chain!r} (they have {', '.join(self.chains())}): "
            "start them again with the module that registers it, in --chains or BATCHORD_CHAINS"
        )


def _needs(what: str | Needs) -> Needs:
    return what if isinstance(what, Needs) else Needs.of(FORMAT, what, None)


def _start(beat: Beat) -> float:
    return 0.0 if beat.since is None else beat.since.timestamp()


def lacks(unset: Iterable[str], *, where: str = "for the workers") -> str:
    """Return what these environment variables that are not set mean, and the cure."""
    names = [*unset]
    parts = []
    if "OPENAI_MODEL" in names:
        parts.append("no model is named: set OPENAI_MODEL, or name one in Chat(...),")
    if "OPENAI_API_KEY" in names:
        parts.append("there is no API key: set OPENAI_API_KEY (any text without a service's key)")
    return f"{' and '.join(parts).rstrip(',')} {where}".rstrip()
