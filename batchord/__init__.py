"""Batchord: durable batches of LLM chains on Celery. These are the names that an app needs."""

from chains import (
    BatchordError,
    Chat,
    Document,
    Embed,
    Lambda,
    Parallel,
    Prompt,
    RateLimit,
    Retriever,
    RetryPolicy,
    Runnable,
    register,
)
from ledger.budget import Budget
from ledger.errors import (
    BatchAborted,
    BatchPaused,
    IdempotencyConflict,
    ItemNotSucceeded,
    LedgerUnavailable,
    ResumeRefused,
    SubmitRefused,
    UnknownBatch,
    ValueRejected,
)
from ledger.models import (
    BatchRecord,
    BatchStatus,
    Item,
    ItemError,
    ItemStatus,
    PauseReason,
    RequestCounts,
)
from ledger.progress import Progress
from ledger.settings import NoServer, Settings
from producer import Batch, Client, Estimate, RemoteRunnable

__all__ = [
    "Batch",
    "BatchAborted",
    "BatchPaused",
    "BatchRecord",
    "BatchStatus",
    "BatchordError",
    "Budget",
    "Chat",
    "Client",
    "Document",
    "Embed",
    "Estimate",
    "IdempotencyConflict",
    "Item",
    "ItemError",
    "ItemNotSucceeded",
    "ItemStatus",
    "Lambda",
    "LedgerUnavailable",
    "NoServer",
    "Parallel",
    "PauseReason",
    "Progress",
    "Prompt",
    "RateLimit",
    "RemoteRunnable",
    "RequestCounts",
    "ResumeRefused",
    "Retriever",
    "RetryPolicy",
    "Runnable",
    "Settings",
    "SubmitRefused",
    "UnknownBatch",
    "ValueRejected",
    "register",
]
