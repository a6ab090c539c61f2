"""Batchord: durable batches of LLM chains on Celery. These are the names that an app needs."""

from chains import (
    BatchordError,
    Chat,
    Document,
    Embed,
    Lambda,
    Parallel,
    Prompt,
    Retriever,
    RetryPolicy,
    Runnable,
    register,
)
from ledger.errors import (
    BatchAborted,
    IdempotencyConflict,
    ItemNotSucceeded,
    LedgerUnavailable,
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
    RequestCounts,
)
from ledger.settings import NoServer, Settings
from producer import Batch, Client, RemoteRunnable

__all__ = [
    "Batch",
    "BatchAborted",
    "BatchRecord",
    "BatchStatus",
    "BatchordError",
    "Chat",
    "Client",
    "Document",
    "Embed",
    "IdempotencyConflict",
    "Item",
    "ItemError",
    "ItemNotSucceeded",
    "ItemStatus",
    "Lambda",
    "LedgerUnavailable",
    "NoServer",
    "Parallel",
    "Prompt",
    "RemoteRunnable",
    "RequestCounts",
    "Retriever",
    "RetryPolicy",
    "Runnable",
    "Settings",
    "SubmitRefused",
    "UnknownBatch",
    "ValueRejected",
    "register",
]
