"""The workers that are alive, and the chains that each of them has.

A worker announces itself every few seconds; its announcement expires with it. `ChainRecord`s, which
say what a chain takes, are kept longer: producers may submit while no worker is up.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from batchord.chains import RegisteredChain, registered
from batchord.chains.specs.chain_spec import is_spec
from batchord.chains.steps.raw_request import REQUESTS
from batchord.ledger.models import Frozen
from batchord.ledger.storage.batch_store import BatchStore

#: Seconds between two announcements of a worker.
ANNOUNCED_EVERY: Final = 4.0
#: Seconds that a worker is listed after its last announcement.
KEPT: Final = 20.0

START: Final = "start one with `batchord worker --chains MODULE`, or `batchord up`"


class ServedChain(Frozen):
    """A chain as one worker has it."""

    #: Of its module's file, types and settings (`RegisteredChain.digest`).
    digest: str = ""
    #: Environment variables that its calls need, and that the worker does not have.
    unset: tuple[str, ...] = ()

    @classmethod
    def of(cls, chain: RegisteredChain, environment: Mapping[str, str]) -> "ServedChain":
        """Return how a worker with this environment has the chain."""
        return cls(digest=chain.digest(), unset=tuple(chain.chain.unset(environment)))


class Announcement(Frozen):
    """The chains of a worker, as it announces itself."""

    chains: Mapping[str, ServedChain] = {}

    @classmethod
    def here(cls) -> "Announcement":
        """Return what this process says: the chains that are registered in it."""
        environment = dict(os.environ)
        return cls(
            chains={name: ServedChain.of(each, environment) for name, each in registered().items()}
        )


@dataclass(frozen=True)
class Fleet:
    """The workers that are alive, by "host:pid"."""

    workers: Mapping[str, Announcement]

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


class FleetStore:
    """Announces a worker, and reads who is alive."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._key = store.keys.fleet

    def announce(self, worker: str, what: Announcement) -> None:
        """Record that the worker "host:pid" is alive."""
        text = what.model_dump_json()
        keys, ttl_ms = {"heard": self._key}, int(KEPT * 1000)
        self._store.transition("heartbeat", keys=keys, process=worker, told=text, ttl_ms=ttl_ms)

    def leave(self, worker: str) -> None:
        """Record that the worker ends."""
        with self._store.talking():
            self._store.redis.hdel(self._key, worker)

    def read(self) -> Fleet:
        """Return the workers that are alive."""
        with self._store.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(self._key)
            (seconds, _), found = self._store.replies(pipe)
        told = {str(name): str(text).partition(" ") for name, text in sorted(found.items())}
        return Fleet(
            {
                name: _announcement(text)
                for name, (heard, _, text) in told.items()
                if int(heard) >= 1000 * (int(seconds) - KEPT)
            }
        )


def _announcement(text: str) -> Announcement:
    try:
        return Announcement.model_validate_json(text)
    except ValidationError:
        return Announcement()  # a newer version's: it is alive, whatever it says
