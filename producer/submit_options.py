"""The options of a submission, and their checks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from batchord.chains.config import RunnableConfig
from batchord.chains.specs.chain_spec import ChainSpec
from batchord.chains.tables.frames import is_arrow_data_set
from batchord.ledger.budget import Budget, checked
from batchord.ledger.errors import SubmitRefused
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.producer.completion_window import Window, window_seconds
from batchord.producer.inputs import is_text

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
    #: Characters of inputs that are kept to be written again, if Redis goes back; None: 64 million.
    most_kept: int | None = None
    #: Whether the batch pauses if its first items all fail alike (`alike_limit`).
    pauses_alike: bool = True
    #: The environment variable, of the workers, with the secret that signs `webhook`; None: the
    #: deployment's secret.
    webhook_secret_env: str | None = None
    #: The tenant of `batchord serve` in whose day's budget the batch's costs count.
    day_budget_of: str | None = None

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


def _check_many(name: str, values: Any) -> None:
    if hasattr(values, "__arrow_c_stream__") or is_arrow_data_set(values):
        return
    # `__getitem__`: the older protocol, which many a data set has.
    iterable = hasattr(values, "__iter__") or hasattr(values, "__getitem__")
    if not iterable or isinstance(values, (str, bytes, Mapping)):
        raise SubmitRefused(
            f"{name}: a {type(values).__name__} is one value, not many: pass a list of {name}"
        )
