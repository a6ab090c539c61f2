"""The public names are a decision, and each blocking call of them has an async form."""

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

import batchord
from batchord import Batch, BatchStatus, Client
from batchord.producer.page_stream import Stream
from tests.support.harness import Deployment

#: Added or removed on purpose only: each is a promise to the users of the next versions.
NAMES = """
Batch BatchAborted BatchEvent BatchPaused BatchRecord BatchStatus BatchordError Budget ChainError
ChainNotFound ChainSpec Chat Client Document Embed Estimate Exported IdempotencyConflict
InvalidInput Item ItemError ItemNotSucceeded ItemStatus Lambda LedgerRefused LedgerUnavailable
LedgerUnreachable ListenedRun NoServer NotVectors OperatorNeeded OutputMismatch Parallel
PauseReason Progress ProgressEvent Prompt RateLimit RemoteRunnable Request RequestCounts
Responses ResumeRefused Retriever RetryLater RetryPolicy RetryRefused Runnable Settings
StatusEvent SubmitRefused UnknownBatch UnreadableBatch Usage ValueRejected register report_usage
""".split()  # noqa: SIM905

#: Methods that have no async form under the name `a...`, and why.
OTHERS = {
    "pairs": "reads the inputs of items that a writer of tables is given, page by page",
    "close": "ends connections, and blocks for moments only",
    "wait": "its async form is `await batch`, or `await_` with a timeout",
}


def test_these_are_the_public_names() -> None:
    assert sorted(batchord.__all__) == NAMES
    for name in NAMES:
        assert getattr(batchord, name) is not None


def _blocking() -> Iterator[tuple[type, str, Any]]:
    for kind in (Client, Batch):
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if name.startswith("_") or name in OTHERS or inspect.iscoroutinefunction(method):
                continue
            returns = str(inspect.signature(method).return_annotation)
            if "Stream" not in returns:  # `for` and `async for`
                yield kind, name, method


BLOCKING = [*_blocking()]


@pytest.mark.parametrize(
    ("kind", "name", "method"),
    BLOCKING,
    ids=[f"{kind.__name__}.{name}" for kind, name, _ in BLOCKING],
)
def test_a_blocking_call_has_an_async_form_with_its_arguments(
    kind: type, name: str, method: Any
) -> None:
    form = getattr(kind, f"a{name}")
    assert inspect.iscoroutinefunction(form)
    assert form.__name__ == f"a{name}"
    parameters = inspect.signature(method).parameters
    assert inspect.signature(form).parameters == parameters


def test_a_batch_is_awaited(shared: Deployment) -> None:
    async def main() -> tuple[Any, ...]:
        client = shared.client
        batch = await client.asubmit("echo", [1, 2], metadata={"by": "await"})
        record = await batch
        [listed] = [each for each in await client.alist() if each.id == batch.id]
        return record, listed, await batch.ahistory(0), await client.achains(), batch.results()

    record, listed, history, chains, results = asyncio.run(main())
    assert (record.status, record.metadata) == (BatchStatus.COMPLETED, {"by": "await"})
    assert listed == record
    assert history == []
    assert "echo" in chains
    assert isinstance(results, Stream)


def test_an_override_has_its_async_form_too(shared: Deployment) -> None:
    class Mine(Client):
        def ping(self) -> None:
            raise ConnectionError("mine")

    with Mine(settings=shared.settings) as client, pytest.raises(ConnectionError, match="mine"):
        asyncio.run(client.aping())
