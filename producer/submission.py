"""Submitting a batch: all inputs are recorded before a task is published, or nothing is left."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain as chained
from typing import Any, Final, Literal, TypedDict

from celery import Celery

from batchord.chains.config import RunnableConfig
from batchord.chains.specs.chain_spec import ChainSpec
from batchord.ledger.broker.publisher import publish_shards
from batchord.ledger.budget import Budget, checked
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.core.json_values import encode
from batchord.ledger.core.message_ids import new_batch_id
from batchord.ledger.core.sharding import FIRST_WINDOW, Cut
from batchord.ledger.errors import SubmitRefused
from batchord.ledger.lifecycle.completion_callback import checked as checked_callback
from batchord.ledger.lifecycle.webhook_policy import BadWebhook, checked_url
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.fleet import Fleet
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.ledger.storage.outbox import owed
from batchord.producer.completion_window import Window, window_seconds
from batchord.producer.configs import recorded, same_length
from batchord.producer.inputs import (
    blocks,
    check_fields,
    check_for,
    inputs_per_call,
    is_text,
    live_only,
    rows_or_values,
    uncached,
    unmetered,
)
from batchord.producer.inputs_digest import InputsDigest
from batchord.producer.recording import Opening, Recording, SubmittedBefore

logger = logging.getLogger(__name__)

#: OpenAI's bounds on a batch's metadata: pairs, and characters of a key and of a value.
METADATA_LIMITS: Final = (16, 64, 512)
MAX_IDEMPOTENCY_KEY: Final = 512

#: Celery's scale with Redis: 0 is served first, 9 last, in four classes (0-2, 3-5, 6-8, 9).
DEFAULT_PRIORITY: Final = 5


class SubmitOptions(TypedDict, total=False):
    """The options of `Client.submit` that a RemoteRunnable takes too; see there."""

    custom_ids: Iterable[str] | None
    metadata: Mapping[str, str] | None
    idempotency_key: str | None
    max_concurrency: int | None
    items_per_task: int | Literal["auto"]
    priority: int
    completion_window: Window | None
    budget: Budget | None
    dedupe: bool
    cache: bool
    on_complete: dict[str, Any] | None
    webhook: str | None
    mode: Literal["live", "provider"]
    provider_retry: Literal["live"] | None
    allow_unserved: bool


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The arguments of one `Client.submit` call; see there."""

    #: A registered name, or a chain that travels as data.
    chain: str | ChainSpec
    inputs: Iterable[Any]
    custom_ids: Iterable[str] | None = None
    metadata: Mapping[str, str] | None = None
    idempotency_key: str | None = None
    max_concurrency: int | None = None
    items_per_task: int | Literal["auto"] = "auto"
    priority: int = DEFAULT_PRIORITY
    completion_window: Window | None = None
    budget: Budget | None = None
    dedupe: bool = False
    cache: bool = False
    on_complete: dict[str, Any] | None = None
    webhook: str | None = None
    mode: Literal["live", "provider"] = "live"
    provider_retry: Literal["live"] | None = None
    config: RunnableConfig | Sequence[RunnableConfig] | None = None
    allow_unserved: bool = False
    #: The id of the batch, if it was given one before; None: a new one. Processes that submit the
    #: same inputs under one id make one batch, also side by side.
    batch_id: str | None = None

    @property
    def name(self) -> str:
        """The name that the batch records for its chain."""
        return self.chain.name if isinstance(self.chain, ChainSpec) else self.chain

    def check(self) -> None:
        """Check all arguments but the inputs themselves; raise SubmitRefused."""
        chain: Any = self.chain
        if not isinstance(chain, str | ChainSpec):
            raise SubmitRefused(
                "chain: give the name that it is registered under, or a ChainSpec, not a "
                f"{type(chain).__name__}"
            )
        if self.metadata is not None and not _is_metadata(self.metadata):
            pairs, key_length, value_length = METADATA_LIMITS
            raise SubmitRefused(
                f"metadata: at most {pairs} pairs of strings, keys up to {key_length} and values "
                f"up to {value_length} characters"
            )
        if self.idempotency_key is not None and not is_text(
            self.idempotency_key, MAX_IDEMPOTENCY_KEY
        ):
            raise SubmitRefused(f"idempotency_key: a text of 1 to {MAX_IDEMPOTENCY_KEY} characters")
        limit: Any = self.max_concurrency
        if limit is not None and (type(limit) is not int or limit < 1):
            raise SubmitRefused("max_concurrency: an int of at least 1, or None for no bound")
        size: Any = self.items_per_task
        if size != "auto" and (type(size) is not int or not 1 <= size <= PAGE_SIZE):
            raise SubmitRefused(f'items_per_task: an int of 1 to {PAGE_SIZE}, or "auto"')
        priority: Any = self.priority
        if type(priority) is not int or not 0 <= priority <= 9:
            raise SubmitRefused("priority: an int from 0, which is served first, to 9")
        for name in ("dedupe", "cache", "allow_unserved"):
            if type(getattr(self, name)) is not bool:
                raise SubmitRefused(f"{name}: True or False")
        window_seconds(self.completion_window)
        checked(self.budget)
        self._check_mode()
        _check_many("inputs", self.inputs)
        if self.custom_ids is not None:
            _check_many("custom_ids", self.custom_ids)

    def _check_mode(self) -> None:
        mode: Any = self.mode
        retry: Any = self.provider_retry
        if mode not in ("live", "provider"):
            raise SubmitRefused('mode: "live", or "provider" for the provider\'s own Batch API')
        if retry not in (None, "live"):
            raise SubmitRefused('provider_retry: "live", or None to let such items fail')
        if retry is not None and mode != "provider":
            raise SubmitRefused('provider_retry: only with mode="provider"')
        if mode == "provider" and (self.dedupe or self.cache):
            raise SubmitRefused('dedupe, cache: only with mode="live"')


def _is_metadata(value: Any) -> bool:
    pairs, key_length, value_length = METADATA_LIMITS
    return (
        isinstance(value, Mapping)
        and len(value) <= pairs
        and all(
            is_text(key, key_length) and (text == "" or is_text(text, value_length))
            for key, text in value.items()
        )
    )


def _callback(what: Submission, reader: BatchReader, settings: Settings) -> str | None:
    if what.on_complete is None:
        return None
    return checked_callback(what.on_complete, reader, settings)


def _check_webhook(webhook: Any, settings: Settings) -> None:
    if webhook is None:
        return
    if not isinstance(webhook, str):
        raise SubmitRefused(f"webhook: an https URL, not a {type(webhook).__name__}")
    try:
        checked_url(webhook, settings)
    except BadWebhook as error:
        raise SubmitRefused(f"webhook: {error}") from None


def _check_many(name: str, values: Any) -> None:
    if hasattr(values, "__arrow_c_stream__"):
        return
    # `__getitem__`: the older protocol, which many a data set has.
    iterable = hasattr(values, "__iter__") or hasattr(values, "__getitem__")
    if not iterable or isinstance(values, (str, bytes, Mapping)):
        raise SubmitRefused(
            f"{name}: a {type(values).__name__} is one value, not many: pass a list of {name}"
        )


def submit(app: Celery, store: BatchStore, what: Submission) -> str:
    """Record the batch and publish its first shards; return its id.

    Order: inputs, seal, messages. After a crash before the seal, the sweep deletes the batch, which
    never ran; after a crash behind the seal, the sweep publishes it. A message without a record
    never exists.
    """
    what.check()
    reader = BatchReader(store)
    callback = _callback(what, reader, store.settings)
    _check_webhook(what.webhook, store.settings)
    check = check_for(what.chain, reader)
    _check_suits(what, reader)
    _check_served(what, reader.fleet())
    config, configs = recorded(what.config)
    inputs = rows_or_values(what.inputs)
    inputs = inputs if configs is None else same_length(inputs, configs)
    pages = blocks(inputs, what.custom_ids, check, store.settings, configs)
    # The first block is checked before anything is written: most mistakes leave no trace.
    digest = None if what.idempotency_key is None else InputsDigest(config)
    if digest is not None:
        pages = digest.of(pages)
    first = next(pages, None)
    if first is None:
        raise SubmitRefused("no inputs: a batch needs at least one")
    check_fields(what.chain, first)
    outbox = owed(callback=callback, webhook=what.webhook)
    batch_id = what.batch_id or new_batch_id()
    recording = Recording(store, reader, batch_id, _opening(store, what, outbox, config))
    cut, window = _cut(what, reader, store.settings), window_seconds(what.completion_window)
    try:
        with recording.alive():
            recording.open()
            for block in chained([first], pages):
                recording.append(block)
            crash_point("before-seal")
            _accept(app, recording, cut, window, digest)
    except SubmittedBefore as before:
        recording.take_back(before)
        if digest is not None:
            digest.check_same(before.record, pages, reader)
        return before.record.id
    except BaseException as error:
        if recording.take_back(error):
            raise
    return recording.batch_id


def _check_suits(what: Submission, reader: BatchReader) -> None:
    """Refuse what the chain cannot do: be sent as a file, be cached, be counted in a budget."""
    if what.mode == "provider" and (why := live_only(what.chain, reader)) is not None:
        raise SubmitRefused(f'mode="provider": chain {what.name!r} cannot be sent, as {why}')
    if what.cache and (why := uncached(what.chain, reader)) is not None:
        raise SubmitRefused(f"cache: {why}")
    if what.budget is not None and (why := unmetered(what.chain, reader)) is not None:
        raise SubmitRefused(f"budget: {why}")


def _check_served(what: Submission, fleet: Fleet) -> None:
    """Refuse a chain that no live worker has; log what else will keep the batch from running."""
    trouble = fleet.trouble(what.name)
    if fleet.workers and not fleet.serving(what.name) and not what.allow_unserved:
        raise SubmitRefused(f"{trouble}; ahead of a roll-out, submit with allow_unserved=True")
    if trouble:
        logger.warning("the batch waits: %s", trouble)


def _accept(
    app: Celery,
    recording: Recording,
    cut: Cut,
    window: float | None,
    digest: InputsDigest | None,
) -> None:
    """Seal the batch and publish its first shards; repeat if the server has lost the seal."""
    batch_id, undone = recording.batch_id, True
    while undone:
        recording.seal(cut, window, None if digest is None else digest.text())
        sealed_at = time.monotonic()
        crash_point("after-seal")
        try:
            # Only the first window: workers publish the shards that they make room for.
            publish_shards(app, recording.store, batch_id, most=cut.first_window)
            undone = recording.undone(sealed_at=sealed_at)
        except Exception as error:  # noqa: BLE001
            # It is sealed, and the sweep will publish it: an error would have it submitted twice.
            logger.warning("batch not yet published batch=%s: %s", batch_id, type(error).__name__)
            return


def _cut(what: Submission, reader: BatchReader, settings: Settings) -> Cut:
    """Choose how the batch is cut into shards and tasks."""
    items_per_task = None if what.items_per_task == "auto" else what.items_per_task
    per_call = inputs_per_call(what.chain, reader)
    if items_per_task is None and per_call > 1:
        items_per_task = min(per_call, PAGE_SIZE)
    window, shard_items, most = settings.shards_in_flight, PAGE_SIZE, what.max_concurrency
    if most is not None:
        # Small shards: the next shard is published once that many items have ended. But a shard
        # fills a call of the chain's provider, or a task, where half of the bound is as much.
        size = max(most // FIRST_WINDOW, min(items_per_task or 1, most // 2), -(-most // window), 1)
        shard_items = min(size, settings.shard_size * (items_per_task or 1), PAGE_SIZE)
        window = min(window, -(-most // shard_items))
    return Cut(
        items_per_task=items_per_task,
        items_per_slot=per_call,
        shard_tasks=settings.shard_size,
        shard_items=shard_items,
        window=window,
        most_items=most,
        priority=what.priority,
    )


def _opening(store: BatchStore, what: Submission, outbox: dict[str, str], config: str) -> Opening:
    """Build the fields with which the batch is opened."""
    fields = {"chain": what.name, "lane": str(store.quiet_lane())}
    if isinstance(what.chain, ChainSpec):
        fields["spec"] = what.chain.as_json()
    if what.metadata:
        fields["metadata"] = encode(dict(what.metadata), max_bytes=65_536, setting="metadata")
    if config:
        fields["config"] = config
    if what.budget is not None:
        fields |= what.budget.fields()
    fields |= {name: "1" for name in ("dedupe", "cache") if getattr(what, name)}
    if what.mode == "provider":
        fields["mode"] = what.mode
        if what.provider_retry is not None:
            fields["provider_retry"] = what.provider_retry
    if what.idempotency_key is not None:
        fields["idempotency_key"] = what.idempotency_key
    return Opening(chain=what.name, fields=fields, key=what.idempotency_key, outbox=outbox)
