"""Errors of the ledger and of submitting, named by what to do next.

* BatchordError                 (batchord.chains.errors) the base of everything of ours
  + LedgerUnavailable           Redis cannot be used: start it, or mend the URL or the password
    + LedgerUnreachable         no answer: start it, or mend the URL
    + BadRedisURL               what is configured is no URL that we can use: mend it as it says
    + LedgerRefused             it answered with an error: its own words say what to change
  + UnreadableBatch             what is recorded of a batch is damaged
    + OtherFormat               another version has written it, and goes on with it: use that
  + UnknownBatch                the ledger has no such batch: check the id, or submit again
  + BatchAborted                the batch was given up before it was sealed: submit again
    + InputsLost                Redis has lost keys of it: set `noeviction`, and submit again
  + RetryRefused                the batch has not completed: wait for it, or submit again
  + ResumeRefused               the batch's budget is used up: resume it with a larger one
  + BatchPaused                 nothing can succeed until a person acts: mend it, then resume
  + IdempotencyConflict         the key names a batch of another chain or inputs: choose another key
  + SubmitRefused               what was submitted cannot be a batch: mend it and submit again
    + ValueRejected             a value is not JSON, too deep or too large
  + OutputMismatch              an output is not of the type that it was read as: mend the type
  + ItemNotSucceeded            an item ended without an output (raised by `Batch.outputs`)
"""

from collections.abc import Collection
from typing import Any

from batchord.chains.errors import BatchordError


class LedgerUnavailable(BatchordError):
    """Redis cannot be reached or refuses us; the message says what to change."""


class BadRedisURL(LedgerUnavailable):
    """The Redis URL cannot be used; the message says what to write, and does not quote it."""


class LedgerUnreachable(LedgerUnavailable):
    """Redis gave no answer: whether it has carried out the request is unknown."""


class LedgerRefused(LedgerUnavailable):
    """Redis answered with an error.

    `server_wide`: it would answer so to anybody now, as it is full, no master, or refuses the
    password; else the error is about the keys that were asked for. `passes`: that may be over in a
    moment, as it is full or no master just now.
    """

    def __init__(self, message: str, *, server_wide: bool = False, passes: bool = False) -> None:
        super().__init__(message)
        self.server_wide = server_wide
        self.passes = passes


def concerns_all(error: BaseException) -> bool:
    """Return whether every caller would meet this error now, whichever batch it asks about.

    Redis gives no answer, or refuses everybody. Any other error is about one batch alone.
    """
    if isinstance(error, LedgerRefused):
        return error.server_wide
    return isinstance(error, LedgerUnavailable)


class UnreadableBatch(BatchordError):
    """The ledger's record of a batch cannot be read; other batches go on.

    `batch_id` and `why` say which batch, and what is wrong with it.
    """

    def __init__(self, batch_id: str, why: str) -> None:
        super().__init__(
            f"batch {batch_id} cannot be read ({why}): use the version of Batchord that wrote it, "
            "or delete its keys, those with its id in their names"
        )
        self.batch_id = batch_id
        self.why = why


class OtherFormat(UnreadableBatch):
    """Another version of Batchord has written the batch, in a format that this one does not serve.

    `format` is that format. The batch goes on where that version runs.
    """

    def __init__(self, batch_id: str, format_: int, served: Collection[int]) -> None:
        super().__init__(batch_id, f"format {format_}")
        said = " and ".join(map(str, sorted(served)))
        self.args = (
            f"batch {batch_id} is of format {format_}, and this version of Batchord serves formats "
            f"{said}: use the version that wrote it; until then it is left alone",
        )
        self.format = format_


class UnknownBatch(BatchordError):
    """The ledger has no batch of this id."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(
            f"unknown batch {batch_id!r}: check the id; if Redis lost its data or the batch's "
            "time to live is over, submit it again"
        )
        self.batch_id = batch_id


class BatchAborted(BatchordError):
    """The batch was given up before it was sealed; none of its items ran."""


class InputsLost(BatchAborted):
    """Redis has lost keys of a batch while it was written; what else there was is taken back."""

    def __init__(self, batch_id: str, what: str) -> None:
        super().__init__(
            f"Redis has lost {what} of batch {batch_id} while it was written: set its "
            "maxmemory-policy to noeviction, let nobody delete keys, and submit again"
        )


class RetryRefused(BatchordError):
    """Only the failed items of a completed batch can be run again."""

    def __init__(self, batch_id: str, status: str) -> None:
        super().__init__(
            f"batch {batch_id} is {status}: only a completed batch's failed items can be run "
            "again; `resubmit` is for what a cancelled or expired one has not run"
        )


class ResumeRefused(BatchordError):
    """The batch has used what its budget is, or more: it would pause again at once."""

    def __init__(self, batch_id: str, used: str) -> None:
        super().__init__(
            f"batch {batch_id} has used {used}: resume it with a larger budget, as "
            "resume(budget=Budget(...)) or --budget-usd, --budget-tokens"
        )


class DayBudgetUsed(BatchordError):
    """The batch's tenant has used what its batches may cost today: it would pause again at once."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(
            f"batch {batch_id} goes on by itself tomorrow (UTC): its key of `batchord serve` has "
            "used the day's budget; a larger one (budget_usd_per_day) is read as the server starts"
        )


class BatchPaused(BatchordError):
    """The workers have paused the batch: no item can succeed until a person acts.

    `batch_id` and `code` say which batch and why.
    """

    def __init__(self, batch_id: str, code: str, message: str) -> None:
        super().__init__(
            f"batch {batch_id} is paused, {code}: {message}; mend that, then resume the batch"
        )
        self.batch_id = batch_id
        self.code = code


class IdempotencyConflict(BatchordError):
    """The idempotency key already names a batch of another chain, or of other inputs."""


class SubmitRefused(BatchordError):
    """The submitted arguments or inputs are invalid; nothing was recorded."""


class ValueRejected(SubmitRefused):
    """A value cannot be recorded as JSON within the limits.

    `code` is `not_json`, `too_deep` or `too_large`; the message never quotes the value.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class OutputMismatch(BatchordError):
    """The output of an item is not of the `output_type` that its batch is read with.

    `batch_id`, `index` and `custom_id` say which item. What is recorded is unchanged: without
    `output_type` it is read as JSON values.
    """

    def __init__(
        self, message: str, *, batch_id: str, index: int, custom_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.batch_id = batch_id
        self.index = index
        self.custom_id = custom_id


class ItemNotSucceeded(BatchordError):
    """An item ended as failed, cancelled or expired, so that it has no output.

    `batch_id`, `index`, `custom_id` and `status` say which item. `code`, `step`, `retryable`,
    `http_status` and `attempts` are those of its `ItemError`, which is `cause`; without an error
    (cancelled, expired) they are None, and `retryable` is False.
    """

    def __init__(
        self,
        message: str,
        *,
        batch_id: str,
        index: int,
        status: str,
        custom_id: str | None = None,
        cause: Any = None,
    ) -> None:
        super().__init__(message)
        self.batch_id = batch_id
        self.index = index
        self.custom_id = custom_id
        self.status = status
        self.cause = cause
        self.code: str | None = getattr(cause, "code", None)
        self.step: str | None = getattr(cause, "step", None)
        self.retryable: bool = getattr(cause, "retryable", False)
        self.http_status: int | None = getattr(cause, "http_status", None)
        self.attempts: int | None = getattr(cause, "attempts", None)
