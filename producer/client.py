"""The client, with which an app submits batches and finds them again."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Unpack, overload

from pydantic import SecretStr

from batchord.chains.config import RunnableConfig
from batchord.chains.specs.chain_spec import ChainSpec
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.budget import Budget
from batchord.ledger.errors import LedgerUnavailable, UnknownBatch
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.models import BatchRecord, Out
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.producer.async_edge import AsyncEdge, async_form
from batchord.producer.batch import Batch
from batchord.producer.completion_window import Window
from batchord.producer.deployment_queries import DeploymentQueries
from batchord.producer.estimate import Estimate, estimate
from batchord.producer.resubmission import resubmit
from batchord.producer.spec_arguments import chosen_chain
from batchord.producer.submission import submit
from batchord.producer.submit_options import DEFAULT_PRIORITY, Submission, SubmitOptions
from batchord.producer.typed_outputs import OutputReader

Configs = RunnableConfig | Sequence[RunnableConfig] | None


class Client(DeploymentQueries):
    """A connection to the ledger and the queue, made at the first call. Safe to share.

    `redis_url`: their Redis; else `BATCHORD_REDIS_URL`, else the server that `batchord up` runs on
    this machine.

    Raises:
        NoServer: no Redis is given, configured or running.
        LedgerUnavailable: `redis_url` is not a Redis URL.
    """

    def __init__(self, redis_url: str | None = None, *, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        if redis_url is not None:
            settings = settings.model_copy(update={"redis_url": SecretStr(redis_url)})
        self.settings = settings
        self._store = BatchStore(settings)
        self._reader = BatchReader(self._store)
        self._app = create_app(settings)
        self._control = BatchControl(self._app, self._store)
        self._edge = AsyncEdge(self._reader)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        self._edge.close()
        self._store.close()
        self._app.close()

    @overload
    def submit(
        self,
        chain: str | ChainSpec | None = ...,
        inputs: Iterable[Any] = ...,
        *,
        output_type: type[Out],
        prompt: str | None = ...,
        system: str | None = ...,
        model: str | None = ...,
        config: Configs = ...,
        **options: Unpack[SubmitOptions],
    ) -> Batch[Out]: ...
    @overload
    def submit(
        self,
        chain: str | ChainSpec | None = ...,
        inputs: Iterable[Any] = ...,
        *,
        output_type: Any = ...,
        prompt: str | None = ...,
        system: str | None = ...,
        model: str | None = ...,
        embed: str | None = ...,
        config: Configs = ...,
        **options: Unpack[SubmitOptions],
    ) -> Batch[Any]: ...
    def submit(
        self,
        chain: str | ChainSpec | None = None,
        inputs: Iterable[Any] = (),
        *,
        prompt: str | None = None,
        system: str | None = None,
        model: str | None = None,
        embed: str | None = None,
        output_type: Any = None,
        custom_ids: Iterable[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        max_concurrency: int | None = None,
        items_per_task: int | Literal["auto"] = "auto",
        priority: int = DEFAULT_PRIORITY,
        completion_window: Window | None = None,
        budget: Budget | None = None,
        dedupe: bool = False,
        cache: bool = False,
        on_complete: dict[str, Any] | None = None,
        webhook: str | None = None,
        mode: Literal["live", "provider"] = "live",
        provider_retry: Literal["live"] | None = None,
        config: Configs = None,
        allow_unserved: bool = False,
    ) -> Batch[Any]:
        """Submit a batch: each input gets exactly one outcome, also if processes die.

        `chain`: the name of a registered chain, or a `ChainSpec`. In its place `prompt`, a template
        over an input's fields (`"Urgent? {subject}: {body}"`), with `system` and `model` (else
        OPENAI_MODEL), or `embed`, the field whose text becomes a vector: any worker runs these, and
        nothing need be registered. `output_type`: what outputs are read as, a pydantic model, say;
        with a prompt the answers have its JSON schema, which may be given as such, too.

        `inputs`: JSON values or pydantic models, in any iterable. They are taken one by one, never
        held whole, and may be slow: a heartbeat tells that this process is alive. `custom_ids`:
        one unique name for each input. `metadata`: up to 16 pairs of strings.
        `idempotency_key`: the same key gives the same batch, from any number of producers, for as
        long as the batch is readable; with other inputs it is refused.
        `max_concurrency`: items in flight at a time.

        `items_per_task`: items that a Celery task carries, 1 to 1,000. "auto" is one item. If the
        first items take less than 5 ms, it is as many as take about 20 ms together; if they share a
        call of the provider (embeddings), as many as fit into it. Each item keeps its own outcome,
        error, deadline and place. `priority`: 0 is served first, 9 last, in four classes (0-2, 3-5,
        6-8, 9), as Celery does on Redis; equal batches take turns.

        `completion_window`: "24h" as OpenAI writes it ("90s", "30m", "7d"), a timedelta, or
        seconds. Items without an outcome by then become `expired`, and so does the batch; earlier
        outcomes stay readable. None: no limit.

        `budget`: `Budget(usd=20)`, `Budget(tokens=100_000)`, or both. Once it is used, the batch
        pauses with the reason `budget_exceeded`; running items may end. `resume` with a larger
        budget goes on.

        `dedupe`: of identical inputs (the same JSON) one runs, and the others get its outcome,
        success or error, with `same_as`. `cache`: an input that the same chain, with the same
        version and step settings, has answered in an earlier batch with `cache` gets that output,
        with `cached`; outputs are kept for BATCHORD_CACHE_TTL.

        `on_complete`: a Celery signature, as `report.s().set(queue="reports")`. Its task is called
        once, with the batch's id before its own arguments, when the batch ends for the first time,
        with any status; a later `retry_failed` does not call it again. It is published to the
        queue that it names on Batchord's Redis, under the task id `ID:on-complete`. `webhook`: the
        URL to which the workers post each end of this batch, in place of `BATCHORD_WEBHOOK_URL`;
        its host must be one of `BATCHORD_WEBHOOK_HOSTS`. Under an `idempotency_key` that was used
        before, both stay unchanged.

        `mode`: "provider" sends the calls through the provider's own Batch API, for about half the
        price and within a day. The chain must be one `Chat`, `Responses` or `Embed`, with prompts
        and functions before and after it. `provider_retry`: "live" has the workers call the model
        for items without a good answer; None: these items fail.

        `config`: a LangChain config for all inputs, or a list with a config for each. `tags`,
        `metadata`, `run_name`, `recursion_limit` and `configurable` are handed to the chain on the
        workers; they are JSON, and are recorded as the inputs are. A list is for inputs that have
        a length.

        `allow_unserved`: submit although workers are alive and none of them has the chain, or its
        version, as before a roll-out. While no worker is alive at all, it is accepted, and a
        warning logged.

        Returns when all inputs are recorded and the first shards are published.

        Raises:
            ChainNotFound: neither this process nor a worker knows the chain.
            SubmitRefused: an input or another argument cannot be used, or no live worker has the
                chain; nothing is left behind.
            TypeError: `output_type` is not a type that pydantic can check.
            BatchAborted: Redis has lost more inputs than can be written again; nothing is left
                behind.
            IdempotencyConflict: the key names a batch of another chain, or of other inputs.
            LedgerUnavailable: Redis cannot be reached or refuses us.
        """
        asked = {"prompt": prompt, "system": system, "model": model, "embed": embed}
        outputs = OutputReader(output_type)
        what = Submission(
            chain=chosen_chain(chain, output_type=output_type, **asked),
            inputs=inputs,
            custom_ids=custom_ids,
            metadata=metadata,
            idempotency_key=idempotency_key,
            max_concurrency=max_concurrency,
            items_per_task=items_per_task,
            priority=priority,
            completion_window=completion_window,
            budget=budget,
            dedupe=dedupe,
            cache=cache,
            on_complete=on_complete,
            webhook=webhook,
            mode=mode,
            provider_retry=provider_retry,
            config=config,
            allow_unserved=allow_unserved,
        )
        batch_id, known = submit(self._app, self._store, what), None
        with suppress(LedgerUnavailable, UnknownBatch):  # it is accepted, whatever becomes of this
            known = self._reader.record(batch_id)
        return self._batch(batch_id, outputs, known)

    asubmit = async_form(submit)

    def _batch(self, batch_id: str, outputs: OutputReader, known: BatchRecord | None) -> Batch[Any]:
        return Batch(batch_id, self._reader, self._control, self._edge, outputs, known)

    def estimate(
        self,
        chain: str | ChainSpec | None = None,
        inputs: Iterable[Any] = (),
        *,
        prompt: str | None = None,
        system: str | None = None,
        model: str | None = None,
        embed: str | None = None,
        output_type: Any = None,
    ) -> Estimate:
        """Return what a batch of these inputs may use; nothing is written, no model is asked.

        By the usage per item of the chain's completed batches; without such a batch, by the
        inputs alone, or by what a `prompt` makes of them, for which no Redis is needed. The
        arguments are those of `submit`.

        Raises:
            ChainNotFound, SubmitRefused, LedgerUnavailable: as `submit` does.
        """
        asked = {"prompt": prompt, "system": system, "model": model, "embed": embed}
        found = chosen_chain(chain, output_type=output_type, **asked)
        return estimate(self._reader, self.settings, found, inputs)

    aestimate = async_form(estimate)

    def resubmit(self, batch_id: str, *, output_type: Any = None) -> Batch[Any]:
        """Submit what of a cancelled or expired batch has never run, as a batch of its own.

        It has the same chain, version, options, inputs and custom_ids, and in its metadata
        `retry_of`. Asked for again, it is the same batch. `output_type`: as in `submit`.

        Raises:
            UnknownBatch: the ledger has no batch of this id.
            SubmitRefused: it is neither cancelled nor expired, or each of its items has run.
        """
        return self.retrieve(resubmit(self._app, self._store, batch_id), output_type=output_type)

    aresubmit = async_form(resubmit)

    @overload
    def retrieve(self, batch_id: str, *, output_type: type[Out]) -> Batch[Out]: ...
    @overload
    def retrieve(self, batch_id: str, *, output_type: Any = ...) -> Batch[Any]: ...
    def retrieve(self, batch_id: str, *, output_type: Any = None) -> Batch[Any]:
        """Return the handle of a batch that any process has submitted.

        `output_type`: what outputs are read as, as in `submit`.

        Raises:
            UnknownBatch: the ledger has no batch of this id.
        """
        outputs = OutputReader(output_type)
        return self._batch(batch_id, outputs, self._reader.record(batch_id))

    aretrieve = async_form(retrieve)
