"""The ledger's records: batches, items and outcomes.

A batch runs `validating -> in_progress -> finalizing -> completed`; `cancelling` and `paused`
stand beside `in_progress`, and `failed`, `expired`, `cancelled` are the other ends (the words of
OpenAI's Batch API, and `paused`). An item runs `queued -claim-> running -settle-> succeeded |
failed | cancelled | expired`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeVar

from batchord.chains import Usage, registered
from batchord.chains.steps.offline_call import why_not_offline
from batchord.ledger.budget import Budget
from batchord.ledger.needs import FORMAT, Needs

#: The type that outputs are read as; Any where none was named.
Out = TypeVar("Out", default=Any)


class BatchStatus(StrEnum):
    """The status of a batch."""

    #: Its inputs are being written; it can be given up without a trace.
    VALIDATING = "validating"
    #: Sealed: its items run until each has an outcome.
    IN_PROGRESS = "in_progress"
    #: No new item starts until it is resumed.
    PAUSED = "paused"
    #: No new item starts; what runs may end.
    CANCELLING = "cancelling"
    #: Every item has its outcome; the commit is near.
    FINALIZING = "finalizing"
    #: Committed. Single items may have failed.
    COMPLETED = "completed"
    #: The batch as a whole could not be run.
    FAILED = "failed"
    #: Its completion window ended first.
    EXPIRED = "expired"
    #: It was cancelled.
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether this status is final."""
        return self in _ENDED


_ENDED = frozenset(
    {BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}
)


class Mode(StrEnum):
    """Where the calls of a batch are made."""

    #: One by one, by the workers.
    LIVE = "live"
    #: By the provider's own Batch API, for less money, within a day.
    PROVIDER = "provider"


class ItemStatus(StrEnum):
    """The status of an item; the last four are outcomes and never change."""

    #: Waiting for a worker.
    QUEUED = "queued"
    #: A worker holds it under a lease.
    RUNNING = "running"
    #: It has an output.
    SUCCEEDED = "succeeded"
    #: It has an error.
    FAILED = "failed"
    #: The batch was cancelled before it ran.
    CANCELLED = "cancelled"
    #: The batch's completion window ended before it ran.
    EXPIRED = "expired"

    @property
    def ended(self) -> bool:
        """Whether this status is an outcome."""
        return self not in (ItemStatus.QUEUED, ItemStatus.RUNNING)


class Repair(StrEnum):
    """Why a sweep has sent tasks again."""

    WORKER_DIED = "worker died"
    OVERTAKEN = "overtaken"
    MESSAGE_LOST = "message lost"
    GATHER_LOST = "gather lost"


class Frozen(BaseModel):
    """A record: its fields never change, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ItemError(Frozen):
    """Why an item failed."""

    #: A code of `batchord.chains.errors`, `timeout`, `worker_lost`, or the exception's class name.
    code: str
    #: At most 2,000 characters; it may quote the input and stays in the ledger.
    message: str
    #: The path of the step that raised, such as `summary.Chat`; None outside of a step.
    step: str | None = None
    #: Whether the same input may succeed when it is tried again.
    retryable: bool = False
    #: The provider's HTTP status, where there was one.
    http_status: int | None = None
    #: The model's answer, where it is the answer that is wrong, or the provider's to a `Request`;
    #: at most 20,000 characters.
    raw: str | None = None
    #: How many times the item was started.
    attempts: int = 1


class Item(Frozen, Generic[Out]):
    """One input of a batch as it stands."""

    index: int
    custom_id: str | None = None
    status: ItemStatus = ItemStatus.QUEUED
    #: The chain's output: JSON values, or a value of the type that its batch is read with; None
    #: unless succeeded.
    output: Out = cast(Out, None)
    error: ItemError | None = None
    #: Tokens and cost of all calls, failed ones included; None where no call reported any.
    usage: Usage | None = None
    #: The item with the same input whose outcome this is (`dedupe`); None: it ran itself.
    same_as: int | None = None
    #: Whether its output is one that an earlier batch has made (`cache`).
    cached: bool = False
    #: Where the output has objects of LangChain's, as `batchord.chains.langchain.objects` notes it.
    types: dict[str, str] | None = Field(default=None, exclude=True)
    #: How many times it was started.
    attempts: int = 0
    #: When its outcome was recorded (UTC, the server's clock).
    settled_at: datetime | None = None
    #: Seconds from the last claim to the outcome.
    duration: float | None = None


class RequestCounts(Frozen):
    """The number of a batch's items, in total and by status."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0

    @property
    def done(self) -> int:
        """Items that have an outcome."""
        return self.succeeded + self.failed + self.cancelled + self.expired


class PauseReason(Frozen):
    """Why the workers have paused a batch: it is for a person to act."""

    #: The error's code, or `budget_exceeded`, `day_budget_exceeded`, `price_unknown`,
    #: `usage_unknown`.
    code: str
    #: What it said; it may quote the input and stays in the ledger.
    message: str
    #: The item that met it; None if it were many.
    index: int | None = None
    #: Whose words the message is: an item's or a provider's error may quote a payload, the
    #: ledger's never does. Unsaid, it may.
    origin: Literal["error", "ledger"] = "error"


class BatchRecord(Frozen):
    """One batch as the ledger has it at this moment. Times are UTC by the server's clock."""

    id: str
    object: str = "batch"
    chain: str
    #: The version of the chain that runs it; None: any.
    chain_version: str | None = None
    #: Of what the ledger has of it (`batchord.ledger.needs`).
    format: int = FORMAT
    status: BatchStatus
    request_counts: RequestCounts
    mode: Mode = Mode.LIVE
    #: In provider mode: what the provider has no good answer to is run live.
    provider_retry: Literal["live"] | None = None
    #: In provider mode: requests that are answered there, and whose answers are not here yet.
    provider_done: int | None = None
    #: Items that a worker holds now.
    running: int = 0
    #: Items that wait for their next attempt.
    put_off: int = 0
    #: Why the workers have paused it; None unless they have.
    reason: PauseReason | None = None
    #: Sums over all calls; None where none reported any.
    usage: Usage | None = None
    #: What it may use before it pauses; None: as much as it takes.
    budget: Budget | None = None
    metadata: dict[str, str] = {}
    idempotency_key: str | None = None
    #: Whether identical inputs run once, and whether outputs of earlier batches are used.
    dedupe: bool = False
    cache: bool = False
    created_at: datetime
    in_progress_at: datetime | None = None
    finalizing_at: datetime | None = None
    cancelling_at: datetime | None = None
    #: When what has no outcome expires; None without a completion window.
    expires_at: datetime | None = None
    #: When it reached the final status that it has.
    ended_at: datetime | None = None
    #: The trace context of its submission, if that was traced.
    traceparent: str | None = None

    @property
    def needs(self) -> Needs:
        """The format and the chain that a worker must serve to run it."""
        return Needs.of(self.format, self.chain, self.chain_version)


class ChainUse(Frozen):
    """The usage of a chain's completed batches together, older batches counting less."""

    batches: int
    items: int
    input_tokens: int
    output_tokens: int
    #: Items whose cost is known, and that cost in billionths of a dollar.
    priced_items: int
    cost_nanos: int


class ChainRecord(Frozen):
    """A chain as the workers announced it."""

    name: str
    #: As it was registered with; None: without one.
    version: str | None = None
    #: JSON Schema of the input; None where the chain declares no type.
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    #: How many inputs one call of its provider takes.
    inputs_per_call: int = 1
    #: Why it cannot run in provider mode; None: it can.
    live_only: str | None = None
    #: Why a batch of it may not take outputs from the cache, or have a budget; None: it may.
    uncached: str | None = None
    unmetered: str | None = None
    #: Seconds that one item may run; None: the workers' default.
    timeout: float | None = None


def announcements() -> list[ChainRecord]:
    """Return what producers may know of the chains registered in this process."""
    return [
        ChainRecord(
            name=name,
            version=each.version,
            input_schema=each.input_schema,
            output_schema=each.output_schema,
            inputs_per_call=each.chain.inputs_per_call,
            live_only=why_not_offline(each.chain),
            uncached=each.why_not_cached(),
            unmetered=each.why_not_metered(),
            timeout=each.timeout,
        )
        for name, each in registered().items()
    ]
