"""Submitting a batch: all inputs are recorded before a task is published, or nothing is left."""

import logging
import time
from collections.abc import Iterator
from itertools import chain as chained
from typing import Any

from celery import Celery

from batchord.chains import registered
from batchord.chains.runtime.tracing import submission_span
from batchord.chains.specs.chain_spec import ChainSpec
from batchord.ledger.broker.publisher import publish_shards
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.core.json_values import encode
from batchord.ledger.core.message_ids import new_batch_id
from batchord.ledger.core.sharding import FIRST_WINDOW, Cut
from batchord.ledger.errors import SubmitRefused
from batchord.ledger.lifecycle.completion_callback import checked as checked_callback
from batchord.ledger.lifecycle.webhook_policy import BadWebhook, checked_url
from batchord.ledger.needs import FORMAT, Needs
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.fleet import Fleet
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.ledger.storage.outbox import owed
from batchord.producer.completion_window import window_seconds
from batchord.producer.configs import recorded, same_length
from batchord.producer.inputs import (
    Block,
    blocks,
    check_fields,
    check_for,
    inputs_per_call,
    live_only,
    rows_or_values,
    uncached,
    unmetered,
)
from batchord.producer.inputs_digest import InputsDigest
from batchord.producer.recording import Opening, Recording, SubmittedBefore
from batchord.producer.submit_options import (
    Submission,
)

logger = logging.getLogger(__name__)


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
    travels, trouble = _served(what, reader.fleet())
    config, configs = recorded(what.config)
    inputs = rows_or_values(what.inputs)
    inputs = inputs if configs is None else same_length(inputs, configs)
    pages = blocks(inputs, what.custom_ids, check, store.settings, configs)
    # The first block is checked before anything is written: most mistakes leave no trace.
    digest = None if what.idempotency_key is None else InputsDigest(config)
    if digest is not None:
        pages = digest.of(pages)
    first = _first(what, pages)
    outbox = owed(callback=callback, webhook=what.webhook, secret_env=what.webhook_secret_env)
    batch_id = what.batch_id or new_batch_id()
    with submission_span(what.name, batch_id) as context:
        opening = _opening(store, what, outbox, config, travels | context)
        recording = Recording(store, reader, batch_id, opening, what.most_kept)
        cut, window = _cut(what, reader, store.settings), window_seconds(what.completion_window)
        try:
            with recording.alive():
                recording.open()
                for block in chained([first], pages):
                    recording.append(block)
                crash_point("before-seal")
                accept(app, recording, cut, window, digest)
        except SubmittedBefore as before:
            recording.take_back(before)
            if digest is not None:
                digest.check_same(before.record, pages, reader)
            return before.record.id
        except BaseException as error:
            if recording.take_back(error):
                raise
    # Not before: what is refused is told in one line.
    if trouble:
        logger.warning("batch %s waits: %s", recording.batch_id, trouble)
    return recording.batch_id


def check_suits(what: Submission, settings: Settings) -> None:
    """Refuse what `submit` would refuse by the options; no ledger is asked.

    Raises:
        SubmitRefused: one is invalid, or the chain cannot do it, as far as this process knows it.
    """
    what.check()
    _check_webhook(what.webhook, settings)
    _check_suits(what, None)


def check_first(what: Submission, settings: Settings) -> None:
    """Refuse what `submit` would refuse by the first inputs, which are taken; asks no ledger.

    Raises:
        SubmitRefused: one does not fit the chain, as far as this process knows it.
    """
    check = check_for(what.chain, None)
    _first(what, blocks(rows_or_values(what.inputs), what.custom_ids, check, settings))


def _first(what: Submission, pages: Iterator[Block]) -> Block:
    """Return the first block of inputs, which has what the chain's templates name."""
    first = next(pages, None)
    if first is None:
        raise SubmitRefused("no inputs: a batch needs at least one")
    check_fields(what.chain, first)
    return first


def _check_suits(what: Submission, reader: BatchReader | None) -> None:
    """Refuse what the chain cannot do: be sent as a file, be cached, be counted in a budget."""
    if what.mode == "provider" and (why := live_only(what.chain, reader)) is not None:
        raise SubmitRefused(f'mode="provider": chain {what.name!r} cannot be sent, as {why}')
    if what.cache and (why := uncached(what.chain, reader)) is not None:
        raise SubmitRefused(f"cache: {why}")
    if what.budget is not None and (why := unmetered(what.chain, reader)) is not None:
        raise SubmitRefused(f"budget: {why}")


def _needs(what: Submission, fleet: Fleet) -> Needs:
    """Return what the batch will need: this format, and the chain's version.

    The version is that of the chain as it is registered here, else that of the worker which
    started last.
    """
    if what.name in (here := registered()):
        return Needs.of(FORMAT, what.name, here[what.name].version)
    return Needs.of(FORMAT, what.name, fleet.latest_version(what.name))


def _served(what: Submission, fleet: Fleet) -> tuple[dict[str, str], str]:
    """Refuse what no live worker serves.

    Return the fields that say who may run the batch, and what else will keep it from running.
    """
    needs = _needs(what, fleet)
    trouble = fleet.trouble(needs)
    if fleet.workers and not fleet.serving(needs) and not what.allow_unserved:
        raise SubmitRefused(f"{trouble}; ahead of a roll-out, submit with allow_unserved=True")
    return _travels(needs, fleet), trouble


def _travels(needs: Needs, fleet: Fleet) -> dict[str, str]:
    """Return the fields that say which workers may run the batch, and by which queue they get it.

    By its own, if some of those that are alive may not.
    """
    fields = {"format": str(needs.format)}
    if needs.version is not None:
        fields["chain_version"] = needs.version
    if not fleet.serves_all(needs):
        fields["apart"] = "1"
    return fields


def accept(
    app: Celery,
    recording: Recording,
    cut: Cut,
    window: float | None,
    digest: InputsDigest | None = None,
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


def _opening(
    store: BatchStore,
    what: Submission,
    outbox: dict[str, str],
    config: str,
    travels: dict[str, str],
) -> Opening:
    """Build the fields with which the batch is opened; `travels`: who may run it (`_travels`)."""
    fields = {"chain": what.name, "lane": str(store.quiet_lane()), **travels}
    if isinstance(what.chain, ChainSpec):
        fields["spec"] = what.chain.as_json()
    if what.metadata:
        fields["metadata"] = encode(dict(what.metadata), max_bytes=65_536, setting="metadata")
    if config:
        fields["config"] = config
    if what.budget is not None:
        fields |= what.budget.fields()
    if what.day_budget_of is not None:
        fields["day_budget"] = store.keys.day_budget(what.day_budget_of)
    fields |= {name: "1" for name in ("dedupe", "cache") if getattr(what, name)}
    if not what.pauses_alike:
        fields["alike_n"] = "-1"  # as of a batch whose items do not
    if what.mode == "provider":
        fields["mode"] = what.mode
        if what.provider_retry is not None:
            fields["provider_retry"] = what.provider_retry
    if what.idempotency_key is not None:
        fields["idempotency_key"] = what.idempotency_key
    return Opening(chain=what.name, fields=fields, key=what.idempotency_key, outbox=outbox)
