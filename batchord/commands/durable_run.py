"""Begin a run, or go on with the one that an earlier process has left."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from hashlib import sha256
from typing import Any, Final, TypeVar, cast

import click
from rich.console import Console

from batchord.chains import registered
from batchord.chains.errors import BatchordError
from batchord.chains.runtime.checkpoints import digest
from batchord.io.input_file import InputFile
from batchord.ledger.budget import Budget
from batchord.ledger.errors import LedgerUnavailable, UnknownBatch
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.settings import Settings
from batchord.local.run_state import RunRecord, RunState, discard_old
from batchord.local.services import has_server
from batchord.producer import Batch, Client
from batchord.producer.tables.remote_file import Destination

F = TypeVar("F", bound=Callable[..., Any])

#: Hex digits of a run's id.
_DIGITS: Final = 16


@dataclass(frozen=True)
class Again:
    """How a run goes on if it was begun before."""

    retry_failed: bool
    only_new: bool
    fresh: bool


def again_options(command: F) -> F:
    """Add how a run goes on that was begun before; the command gets it as `again`."""

    @wraps(command)
    def with_again(
        *args: Any, retry_failed: bool, only_new: bool, fresh: bool, **given: Any
    ) -> Any:
        if retry_failed + only_new + fresh > 1:
            raise click.UsageError("give one of --retry-failed, --only-new and --fresh")
        return command(*args, again=Again(retry_failed, only_new, fresh), **given)

    command_with_options: Any = with_again
    for option in (
        click.option("--fresh", is_flag=True, help="Start over, without what an earlier run left."),
        click.option(
            "--only-new",
            is_flag=True,
            help="Keep the answers that the output file has for the same rows; run the others.",
        ),
        click.option(
            "--retry-failed", is_flag=True, help="Run the failed items of the earlier run again."
        ),
    ):
        command_with_options = option(command_with_options)
    return cast(F, command_with_options)


def chain_version(chain: str) -> str:
    """Return what tells the chain from one with other settings: models, prompts, its version.

    The code of functions is not part of it. Of a chain that only workers know, it is the name.
    """
    here = registered().get(chain)
    if here is None:
        return chain
    whole = digest(here.name, here.version, here.output_schema, here.chain.fingerprint())
    return whole or str(digest(here.name, here.version, here.output_schema))


def run_state(
    settings: Settings, source: InputFile, chain: str, output: Destination, how: Any
) -> RunState:
    """Return the state of the run of this input, chain and output file.

    `how`: what else changes the answers or the file, as a JSON value.
    """
    discard_old(settings.home, settings.result_ttl)
    parts = [source.digest(), chain, chain_version(chain), str(output.absolute()), how]
    name = sha256(json.dumps(parts).encode()).hexdigest()[:_DIGITS]
    new = RunRecord(
        id=f"run_{name}",
        chain=chain,
        input=source.name,
        output=str(output),
        own_server=not has_server(settings),
    )
    return RunState(settings.home, new)


def check_state(state: RunState, again: Again, settings: Settings) -> None:
    """Drop the earlier run if it is not wanted.

    Raises:
        click.UsageError: there is no earlier run whose failed items could run again.
    """
    if again.fresh and state.resumed:
        _cancel(state, settings)
        state.forget()
    if again.retry_failed and state.record.batch_id is None:
        raise click.UsageError(
            "--retry-failed: there is no earlier run of this input and chain into this file, or "
            "all of its items succeeded; --only-new runs the rows without an answer in the file"
        )


def _cancel(state: RunState, settings: Settings) -> None:
    """Cancel the batch of a run in a ledger of others, where it would go on."""
    if state.record.own_server or state.record.batch_id is None or not has_server(settings):
        return
    with Client(settings=settings) as client, suppress(UnknownBatch):
        client.retrieve(state.record.batch_id).cancel()


def begun(
    client: Client,
    state: RunState,
    submit: Callable[[Client, str], Batch],
    budget: Budget | None,
    again: Again,
    out: Console,
) -> Batch:
    """Return the batch of the run: the one that is there, which goes on, or a new one.

    `submit` is given the idempotency key. `budget` replaces that of a batch which is there.
    """
    batch = _earlier(client, state)
    if batch is None:
        batch = _submitted(client, state, submit, out)
        total = batch.record().request_counts.total
        state.save(batch_id=batch.id, total=total, done=None, status=None)
        return batch
    record = batch.record()
    counts = record.request_counts
    since = f"{state.record.created_at.astimezone():%Y-%m-%d %H:%M}"
    if record.status.ended:
        if not (again.retry_failed and retried(batch, record, out)):
            cure = "--fresh runs all items again"
            if counts.failed:
                cure = "--retry-failed runs its failed items again, --fresh all items"
            out.print(
                f"The run of {since} has ended already ({counts.succeeded} of {counts.total} items "
                f"succeeded), and nothing is run; its results are written: {cure}",
                soft_wrap=True,
            )
        return batch
    out.print(
        f"Going on with the run of {since}: {counts.done} of {counts.total} items had ended",
        soft_wrap=True,
    )
    if record.status is BatchStatus.PAUSED or budget is not None:
        batch.resume(budget=budget)
    return batch


def _submitted(
    client: Client, state: RunState, submit: Callable[[Client, str], Batch], out: Console
) -> Batch:
    """Submit the batch; however that ends, the same key finds what was submitted."""
    state.save(begun=True)
    try:
        return submit(client, state.record.key)
    except KeyboardInterrupt:
        out.print("\nInterrupted\nRun the same command again to go on")
        sys.exit(130)
    except LedgerUnavailable:
        raise  # it is unknown what was recorded
    except BatchordError:
        state.save(begun=False)  # refused: nothing is left of it
        raise


def _earlier(client: Client, state: RunState) -> Batch | None:
    if not state.resumed or state.record.batch_id is None:
        return None
    try:
        return client.retrieve(state.record.batch_id)
    except UnknownBatch:  # it has expired, or its Redis is another one
        return None


def retried(batch: Batch, record: BatchRecord, out: Console) -> bool:
    """Run the failed items of a completed batch again; False if no item has failed."""
    if record.status is not BatchStatus.COMPLETED or not record.request_counts.failed:
        return False
    out.print(f"{batch.retry_failed()} failed items run again")
    return True


def finish(state: RunState, record: BatchRecord, again: Again, out: Console) -> None:
    """Drop the run if each of its items succeeded; else keep it, and say what can be done.

    After --only-new the table that was written makes it another run, which has the failed rows.
    """
    counts = record.request_counts
    completed = record.status is BatchStatus.COMPLETED
    if completed and (counts.succeeded == counts.total or again.only_new):
        state.remove()
    else:
        state.save(done=counts.done, status=record.status if record.status.ended else None)
    if completed and counts.succeeded < counts.total:
        options = "" if again.only_new else " with --retry-failed"
        out.print(f"The same command{options} runs the failed items again")
