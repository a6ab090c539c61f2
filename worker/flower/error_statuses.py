"""HTTP statuses of our errors."""

from typing import Final

from batchord.chains.errors import BatchordError
from batchord.ledger.errors import (
    LedgerUnavailable,
    OtherFormat,
    ResumeRefused,
    RetryRefused,
    SubmitRefused,
    UnknownBatch,
    UnreadableBatch,
    concerns_all,
)

#: The HTTP status of each kind of error.
_STATUS: Final[dict[type[BatchordError], int]] = {
    UnknownBatch: 404,
    RetryRefused: 409,
    ResumeRefused: 409,
    # A budget that cannot be one.
    SubmitRefused: 400,
    # It is of another version.
    OtherFormat: 409,
    # It is there, and asking again does not help.
    UnreadableBatch: 500,
    LedgerUnavailable: 503,
}


def status_of(error: BatchordError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, LedgerUnavailable) and not concerns_all(error):
        return _STATUS[UnreadableBatch]
    return next((n for kind, n in _STATUS.items() if isinstance(error, kind)), 500)
