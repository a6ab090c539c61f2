"""The digest of a batch's inputs, by which one idempotency key is refused for other inputs."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import repeat

from batchord.ledger.core.compression import split_head
from batchord.ledger.errors import IdempotencyConflict
from batchord.ledger.models import BatchRecord
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.producer.inputs import Block


class InputsDigest:
    """SHA-256 over the config, the inputs and the custom_ids of a batch, in their order.

    Inputs that are equal as JSON are equal here: the order of an object's keys does not count.
    """

    def __init__(self, config: str) -> None:
        """`config`: of the batch as a whole, as JSON text; empty: it has none."""
        self._hash = hashlib.sha256(_canonical(json.loads(config or "null")))
        #: Inputs that were added.
        self.count = 0

    def of(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the blocks, each after it was added."""
        for block in blocks:
            self._add(block)
            yield block

    def text(self) -> str:
        """Return the digest of what was added so far, in hexadecimal digits."""
        return self._hash.hexdigest()

    def check_same(self, record: BatchRecord, rest: Iterator[Block], reader: BatchReader) -> None:
        """Read the rest of the inputs, and compare all of them with those of a recorded batch.

        Raises:
            IdempotencyConflict: they are others, more or fewer.
        """
        total = record.request_counts.total
        # A longer file is found out as soon as it is longer.
        while self.count <= total and next(rest, None) is not None:
            pass
        kept = reader.inputs_digest(record.id)  # None: a version without digests sealed the batch
        if self.count != total or kept not in (None, self.text()):
            raise IdempotencyConflict(
                f"idempotency key {record.idempotency_key!r} names batch {record.id}, whose "
                f"{total:,} inputs are others: choose another key for these, or submit the same "
                "inputs"
            )

    def _add(self, block: Block) -> None:
        # Item by item: how inputs are cut into blocks must not count.
        for text, custom_id in zip(block.inputs, block.custom_ids or repeat(None), strict=False):
            head, body = split_head(text)
            self._hash.update(_canonical([head, json.loads(body), custom_id]))
        self.count = block.stop


def _canonical(value: object) -> bytes:
    """Return the JSON of a value, the same for equal values, behind its length."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return b"%d:%s" % (len(text), text)
