"""Submission of a validated file: its lines become the inputs of a batch of the ledger's."""

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

from batchord.chains.steps.raw_request import REQUESTS
from batchord.gateway.backend import Backend
from batchord.gateway.batches.file_check import RawLine, raw_lines, read_line
from batchord.ledger.budget import Budget
from batchord.ledger.errors import BatchAborted, UnknownBatch
from batchord.ledger.models import BatchStatus
from batchord.ledger.storage.api_batches import ApiBatch
from batchord.producer.submission import submit
from batchord.producer.submit_options import Submission

#: Options beyond OpenAI's: what SDKs send as `extra_body`.
OPTIONS: Final = ("priority", "max_concurrency", "budget", "dedupe")
#: The option that says that the batch's costs count in the day's budget of its tenant.
DAY_BUDGET: Final = "day_budget"

#: Characters of inputs that are held until the batch is sealed. If Redis loses others, the whole
#: file is read again.
_MOST_KEPT: Final = 8_000_000


@dataclass
class FileInputs:
    """The lines of an input file as inputs, read as they are needed, and their custom_ids."""

    backend: Backend
    batch: ApiBatch
    file: IO[bytes]
    #: Whether workers will read payloads from the file.
    reads_file: bool = False
    _ids: deque[str] = field(default_factory=deque)
    _places: dict[bytes, dict[str, Any]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        settings = self.backend.settings
        for line in raw_lines(self.file, settings.file_line_bytes):
            request = read_line(line, self.batch.endpoint, settings)
            self._ids.append(request.custom_id)
            yield self._input(line, request.body)

    @property
    def custom_ids(self) -> Iterator[str]:
        """The custom_ids, each after its input was taken."""
        while self._ids:
            yield self._ids.popleft()

    def _input(self, line: RawLine, body: dict[str, Any]) -> dict[str, Any]:
        """Return the input: of a large line, where it is, as workers read it from the file."""
        url, text = self.batch.endpoint, line.text or b""
        if len(text) <= self.backend.settings.file_inline_bytes:
            return {"url": url, "body": body}
        self.reads_file = True
        where = {"file": self.batch.input_file_id, "offset": line.offset, "length": len(text)}
        if self.batch.options.get("dedupe"):
            # Equal bodies are equal inputs: the place of the first of them stands for all.
            name = hashlib.sha256(fingerprint_of(body).encode()).digest()
            where = self._places.setdefault(name, where)
        named = {"model": body["model"]} if isinstance(body.get("model"), str) else {}
        return {"url": url, "body": named, "stored": where}


def submit_file(backend: Backend, batch: ApiBatch, file: IO[bytes]) -> bool:
    """Make it a batch of the ledger's, under its own id; it may have been begun before.

    Return whether workers will read payloads from the file, which is to be kept for them.

    Raises:
        SubmitRefused: a line cannot be recorded.
        LedgerUnavailable: Redis cannot be reached.
    """
    inputs = FileInputs(backend, batch, file)
    tenant = backend.keys.tenants.get(batch.tenant)
    left = max(1.0, batch.created_at + batch.window - backend.store.now())
    what = Submission(
        chain=REQUESTS,
        inputs=inputs,
        custom_ids=inputs.custom_ids,
        metadata=batch.metadata,
        completion_window=left,
        batch_id=batch.id,
        most_kept=_MOST_KEPT,
        # At OpenAI, a batch all of whose requests are refused is completed.
        pauses_alike=False,
        webhook=None if tenant is None else tenant.webhook_url,
        webhook_secret_env=None if tenant is None else tenant.webhook_secret_env,
        day_budget_of=batch.tenant if batch.options.get(DAY_BUDGET) else None,
        **submit_options(batch.options),
    )
    try:
        submit(backend.app, backend.store, what)
    except BatchAborted:
        if not is_submitted(backend, batch.id):
            raise
        return True  # another server has submitted it
    return inputs.reads_file


def submit_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a batch as `Submission` takes them."""
    found = {name: options[name] for name in OPTIONS if options.get(name) is not None}
    if (budget := found.get("budget")) is not None:
        found["budget"] = Budget(**budget)
    return found


def is_submitted(backend: Backend, batch_id: str) -> bool:
    """Whether the ledger has accepted the batch."""
    try:
        return backend.reader.status(batch_id) is not BatchStatus.VALIDATING
    except UnknownBatch:
        return False


def fingerprint_of(body: Any) -> str:
    """Return JSON in which equal arguments are equal texts."""
    return json.dumps(body, sort_keys=True)
