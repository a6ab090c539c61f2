"""Commands that steer a batch that runs: pause, resume, cancel, retry."""

import click

from batchord.commands.batches import batch_argument
from batchord.commands.options import budget_of, budget_options, json_option
from batchord.ledger.models import BatchStatus
from batchord.output import render
from batchord.producer import Batch, Client


@click.command()
@batch_argument
@json_option
def pause(batch_id: str, as_json: bool) -> None:
    """Let no new item of a batch start until it is resumed; what runs may end."""
    batch = _going_on(batch_id, "paused")
    batch.pause()
    _show(batch, as_json)


@click.command()
@batch_argument
@budget_options
@json_option
def resume(
    batch_id: str, budget_usd: float | None, budget_tokens: int | None, as_json: bool
) -> None:
    """Let a paused batch go on where it was; a budget stands in for the one that it has."""
    batch = _going_on(batch_id, "resumed")
    batch.resume(budget=budget_of(budget_usd, budget_tokens))
    _show(batch, as_json)


@click.command()
@batch_argument
@json_option
def cancel(batch_id: str, as_json: bool) -> None:
    """End a batch with what is done; what runs is cancelled within seconds."""
    batch = _going_on(batch_id, "cancelled")
    batch.cancel()
    _show(batch, as_json)


@click.command()
@batch_argument
@click.option("--code", "codes", multiple=True, help="Only items that failed with this code.")
@json_option
def retry(batch_id: str, codes: tuple[str, ...], as_json: bool) -> None:
    """Run the failed items of a completed batch again, in place."""
    batch = Client().retrieve(batch_id)
    count = batch.retry_failed(codes or None)
    if codes and not count:
        there = ", ".join(f"{each.code} {each.count}" for each in batch.progress().failures)
        raise click.UsageError(
            f"no item failed with {' or '.join(codes)}: failed items have {there or 'no codes'}"
        )
    click.echo(f"{count} items run again", err=True)
    _show(batch, as_json)


@click.command()
@batch_argument
@json_option
def resubmit(batch_id: str, as_json: bool) -> None:
    """Submit what of a cancelled or expired batch has never run, as a new one; prints its id.

    Chain, version, options and inputs are those of the old one. Given again, it is the same batch.
    """
    batch = Client().resubmit(batch_id)
    click.echo(batch.record().model_dump_json() if as_json else batch.id)


def _going_on(batch_id: str, what: str) -> Batch:
    """Return the batch; refuse one that has ended, which would stay as it is."""
    batch = Client().retrieve(batch_id)
    status = batch.record().status
    if status.ended:
        more = " (retry runs its failed items again)" if status is BatchStatus.COMPLETED else ""
        raise click.UsageError(
            f"batch {batch_id} has ended, {status}: it cannot be {what} any more{more}"
        )
    return batch


def _show(batch: Batch, as_json: bool) -> None:
    record = batch.record()
    if as_json:
        click.echo(record.model_dump_json())
    else:
        render.console().print(render.summary(record))


COMMANDS = (pause, resume, cancel, retry, resubmit)
