"""Batchord: durable batches of LLM chains on Celery. These are the names that an app needs.

Each name is imported at its first use, so that `import batchord` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchord.chains import (
        BatchordError,
        ChainError,
        ChainNotFound,
        ChainSpec,
        Chat,
        Document,
        Embed,
        InvalidInput,
        Lambda,
        ListenedRun,
        OperatorNeeded,
        Parallel,
        Prompt,
        RateLimit,
        Request,
        Responses,
        Retriever,
        RetryLater,
        RetryPolicy,
        Runnable,
        Usage,
        register,
        report_usage,
    )
    from batchord.ledger.budget import Budget
    from batchord.ledger.errors import (
        BatchAborted,
        BatchPaused,
        IdempotencyConflict,
        ItemNotSucceeded,
        LedgerRefused,
        LedgerUnavailable,
        LedgerUnreachable,
        OutputMismatch,
        ResumeRefused,
        RetryRefused,
        SubmitRefused,
        UnknownBatch,
        UnreadableBatch,
        ValueRejected,
    )
    from batchord.ledger.models import (
        BatchRecord,
        BatchStatus,
        Item,
        ItemError,
        ItemStatus,
        PauseReason,
        RequestCounts,
    )
    from batchord.ledger.settings import NoServer, Settings
    from batchord.ledger.storage.batch_stats import Progress
    from batchord.ledger.storage.events import BatchEvent, ProgressEvent, StatusEvent
    from batchord.producer import Batch, Client, Estimate, RemoteRunnable
    from batchord.producer.export import Exported, NotVectors

#: Where the public names come from; the imports above tell type checkers the same.
_MODULES = {
    "batchord.chains": (
        "BatchordError",
        "ChainError",
        "ChainNotFound",
        "ChainSpec",
        "Chat",
        "Document",
        "Embed",
        "InvalidInput",
        "Lambda",
        "ListenedRun",
        "OperatorNeeded",
        "Parallel",
        "Prompt",
        "RateLimit",
        "Request",
        "Responses",
        "Retriever",
        "RetryLater",
        "RetryPolicy",
        "Runnable",
        "Usage",
        "register",
        "report_usage",
    ),
    "batchord.ledger.budget": ("Budget",),
    "batchord.ledger.errors": (
        "BatchAborted",
        "BatchPaused",
        "IdempotencyConflict",
        "ItemNotSucceeded",
        "LedgerRefused",
        "LedgerUnavailable",
        "LedgerUnreachable",
        "OutputMismatch",
        "ResumeRefused",
        "RetryRefused",
        "SubmitRefused",
        "UnknownBatch",
        "UnreadableBatch",
        "ValueRejected",
    ),
    "batchord.ledger.storage.events": (
        "BatchEvent",
        "ProgressEvent",
        "StatusEvent",
    ),
    "batchord.ledger.models": (
        "BatchRecord",
        "BatchStatus",
        "Item",
        "ItemError",
        "ItemStatus",
        "PauseReason",
        "RequestCounts",
    ),
    "batchord.ledger.storage.batch_stats": ("Progress",),
    "batchord.ledger.settings": (
        "NoServer",
        "Settings",
    ),
    "batchord.producer": (
        "Batch",
        "Client",
        "Estimate",
        "RemoteRunnable",
    ),
    "batchord.producer.export": (
        "Exported",
        "NotVectors",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Batch",
    "BatchAborted",
    "BatchEvent",
    "BatchPaused",
    "BatchRecord",
    "BatchStatus",
    "BatchordError",
    "Budget",
    "ChainError",
    "ChainNotFound",
    "ChainSpec",
    "Chat",
    "Client",
    "Document",
    "Embed",
    "Estimate",
    "Exported",
    "IdempotencyConflict",
    "InvalidInput",
    "Item",
    "ItemError",
    "ItemNotSucceeded",
    "ItemStatus",
    "Lambda",
    "ListenedRun",
    "LedgerRefused",
    "LedgerUnavailable",
    "LedgerUnreachable",
    "NoServer",
    "NotVectors",
    "OperatorNeeded",
    "OutputMismatch",
    "Parallel",
    "PauseReason",
    "Progress",
    "ProgressEvent",
    "Prompt",
    "RateLimit",
    "RemoteRunnable",
    "Request",
    "RequestCounts",
    "Responses",
    "ResumeRefused",
    "Retriever",
    "RetryLater",
    "RetryPolicy",
    "RetryRefused",
    "Runnable",
    "Settings",
    "StatusEvent",
    "SubmitRefused",
    "UnknownBatch",
    "UnreadableBatch",
    "Usage",
    "ValueRejected",
    "register",
    "report_usage",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
