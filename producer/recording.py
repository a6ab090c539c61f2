"""Recording of one batch: open, inputs, seal; inputs that Redis loses are written again.

A restarted server may have an earlier state of the ledger (its append-only file reaches the disk
once a second, a replica lags). The answer to each step says how much is recorded, and the producer
goes on from there.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from batchord.chains.errors import BatchordError
from batchord.ledger.core.sharding import Cut
from batchord.ledger.errors import (
    BatchAborted,
    IdempotencyConflict,
    InputsLost,
    LedgerUnavailable,
    UnknownBatch,
)
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.producer.inputs import Block

logger = logging.getLogger(__name__)

#: Characters of inputs that are kept until the seal, to be written again: several seconds of
#: writing. Older inputs are on the server's disk by then.
KEPT: Final = 64_000_000
#: Times that one submission goes back with the server, at most.
_MOST_RETURNS: Final = 10
#: Heartbeats within `Settings.submit_timeout`.
_BEATS: Final = 4

#: Seconds between two checks whether another producer with the same key has sealed.
_POLL: Final = 0.1
#: Seconds after which a producer that took a key but has not opened its batch is dead.
_OPEN_GRACE: Final = 5.0


class SubmittedBefore(Exception):
    """The idempotency key names another producer's batch, which is sealed."""

    def __init__(self, record: BatchRecord) -> None:
        super().__init__(record.id)
        self.record = record


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The data that opens a batch: its record's fields, idempotency key and outbox entries."""

    chain: str
    fields: dict[str, str]
    key: str | None
    outbox: dict[str, str]


@dataclass
class Recording:
    """One batch while it is written. Wrap all calls in `alive`."""

    store: BatchStore
    reader: BatchReader
    batch_id: str
    opening: Opening
    #: Characters of inputs that are kept; None: KEPT.
    most_kept: int | None = None
    #: The latest blocks, the oldest of them first.
    _kept: deque[Block] = field(default_factory=deque)
    _size: int = 0
    _total: int = 0
    _with_ids: bool = False
    _returns: int = 0

    def open(self) -> None:
        """Open the batch.

        Raises:
            SubmittedBefore: the idempotency key names another batch.
            IdempotencyConflict: the key names a batch of another chain.
        """
        opening = self.opening
        while True:
            existing = self._existing(opening.key) if opening.key is not None else None
            if existing is not None:
                raise SubmittedBefore(existing)
            if self.store.open(
                self.batch_id, opening.fields, key=opening.key, outbox=opening.outbox
            ):
                return

    def append(self, block: Block) -> None:
        """Record the next block, after writing again the earlier inputs that Redis has lost.

        Raises:
            BatchAborted: Redis has lost inputs that are not kept any more.
            SubmitRefused: a custom_id came before.
        """
        self._keep(block)
        self._catch_up(block.start)

    def seal(self, cut: Cut, window: float | None, digest: str | None = None) -> None:
        """Seal the batch, once all of it is recorded; raises as `append` does."""
        seal = partial(
            self.store.seal,
            self.batch_id,
            total=self._total,
            cut=cut,
            key=self.opening.key,
            window=window,
            with_ids=self._with_ids,
            entries=len(self.opening.outbox),
            digest=digest,
        )
        while (at := self._try(seal, self._total)) < self._total:
            self._catch_up(at)

    def undone(self, *, sealed_at: float) -> bool:
        """Check whether the server has lost the seal that it confirmed at `sealed_at`.

        `sealed_at`: a time of `time.monotonic`.
        """
        try:
            return self.reader.status(self.batch_id) is BatchStatus.VALIDATING
        except UnknownBatch:
            # It may have ended, and expired.
            return time.monotonic() - sealed_at < self.store.settings.result_ttl

    def take_back(self, error: BaseException) -> bool:
        """Delete the batch after this error; False if it is sealed after all.

        An error of the deletion is logged: it must not hide the first error. Keys that are left
        expire by themselves.
        """
        try:
            if not self.store.abort(self.batch_id):
                return not isinstance(error, LedgerUnavailable)
            if self.opening.key is not None:
                self.store.free_key(self.opening.key, self.batch_id)
        except BatchordError as second:
            logger.warning("batch not taken back yet batch=%s: %s", self.batch_id, second)
        return True

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Send heartbeats inside of the block, however long the next input takes."""
        stop = threading.Event()
        beats = threading.Thread(
            target=Context().run, args=(self._beat, stop), name="submission", daemon=True
        )
        beats.start()
        try:
            yield
        finally:
            stop.set()
            # A late heartbeat does no harm: it renews nothing but an unsealed batch.
            beats.join(timeout=1.0)

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(self.store.settings.submit_timeout / _BEATS):
            try:
                self.store.renew(self.batch_id, total=self._total, key=self.opening.key)
            except BatchordError as error:
                logger.warning("no heartbeat of batch=%s: %s", self.batch_id, error)

    def _keep(self, block: Block) -> None:
        self._kept.append(block)
        self._size += block.size
        self._total = block.stop
        self._with_ids = block.custom_ids is not None
        while self._size > (self.most_kept or KEPT) and len(self._kept) > 1:
            self._size -= self._kept.popleft().size

    def _catch_up(self, at: int) -> None:
        """Write the kept inputs from index `at` on, or from the index that the ledger names."""
        while at < self._total:
            block = self._block_at(at)
            append = partial(
                self.store.append, self.batch_id, block.start, block.inputs, block.custom_ids
            )
            at = self._try(append, block.stop)

    def _block_at(self, index: int) -> Block:
        for block in self._kept:
            if block.start <= index < block.stop:
                return block
        raise BatchAborted(
            f"Redis went back to before input {index} of batch {self.batch_id}, and inputs before "
            f"{self._kept[0].start} are not kept any more: submit again"
        )

    def _try(self, step: Callable[[], int], expected: int) -> int:
        """Take the step; return the index to go on at, `expected` unless the ledger is behind it.

        If the batch is gone, it is opened again.
        """
        try:
            at = step()
        except InputsLost:
            raise
        except BatchAborted:
            if self._returns >= _MOST_RETURNS:
                raise
            self.open()
            at = 0
        if at < expected:
            self._returns += 1
            logger.warning("Redis went back batch=%s: written again from %s", self.batch_id, at)
        if self._returns > _MOST_RETURNS:
            raise BatchAborted(
                f"Redis keeps losing what it is told of batch {self.batch_id}: look at its log, "
                "then submit again"
            )
        return at

    def _existing(self, key: str) -> BatchRecord | None:
        """Return the sealed batch that the key names, or None once it names this batch.

        While another producer writes that batch, wait for it; if it is dead, take the key over.
        """
        store, chain = self.store, self.opening.chain
        opened_by = time.monotonic() + _OPEN_GRACE
        while (holder := store.take_key(key, self.batch_id)) != self.batch_id:
            try:
                record = self.reader.record(holder)
            except UnknownBatch:
                if time.monotonic() > opened_by:
                    store.free_key(key, holder)
                time.sleep(_POLL)
                continue
            if record.chain != chain:
                raise IdempotencyConflict(
                    f"idempotency key {key!r} names batch {holder} of chain {record.chain!r}, not "
                    f"{chain!r}: choose another key"
                )
            if record.status is not BatchStatus.VALIDATING:
                return record
            if store.abort(holder, silent=store.settings.submit_timeout):
                store.free_key(key, holder)
            time.sleep(_POLL)
        return None
