"""The beats of workers in the ledger.

A beat is written every few seconds and expires with its worker. `ChainRecord`s, which say what a
chain takes, are kept longer: producers may submit while no worker is up.
"""

import json
import os
import socket
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from batchord.ledger.core.message_ids import lists_of
from batchord.ledger.needs import Needs
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.fleet import Beat, Fleet

#: Seconds between two beats of a worker.
BEATS_EVERY: Final = 4.0
#: Seconds that a worker is listed after its last beat.
KEPT: Final = 20.0
#: Seconds that workers look into a queue of messages that were put apart, after the last of them.
APART_KEPT: Final = 7 * 24 * 3600.0


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

    def put_apart(self, needs: Needs) -> None:
        """Record that messages which need this are in a queue of their own: workers take it up.

        They expire if no worker does: then the sweep publishes them again.
        """
        queue = needs.queue(self._store.settings.queue)
        told, ttl_ms = json.dumps(needs.header()), int(APART_KEPT * 1000)
        keys = {"heard": self._store.keys.apart}
        self._store.transition("heartbeat", keys=keys, process=queue, told=told, ttl_ms=ttl_ms)
        with self._store.talking(), self._store.redis.pipeline(transaction=False) as pipe:
            for name in lists_of(queue):
                pipe.pexpire(name, ttl_ms)
            pipe.execute()

    def apart(self) -> dict[str, Needs]:
        """Return what the messages need that were put apart lately, by their queue."""
        with self._store.talking():
            found: Any = self._store.redis.hgetall(self._store.keys.apart)
        told = {str(queue): text.partition(" ")[2] for queue, text in found.items()}
        return {queue: Needs.read(_json(text)) for queue, text in told.items()}

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


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _beat(text: str) -> Beat:
    try:
        return Beat.model_validate_json(text)
    except ValidationError:
        return Beat()  # of another version: it is alive, whatever it says
