"""Commands that look after a deployment: doctor, purge."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from json import dumps
from pathlib import Path

import click
from rich.text import Text

from batchord.commands.options import json_option
from batchord.ledger.lifecycle.diagnostics import Grade
from batchord.ledger.models import BatchRecord
from batchord.ledger.settings import Settings
from batchord.local.run_state import discard, unfinished
from batchord.output import render
from batchord.producer import Client
from batchord.producer.completion_window import window_seconds

_COLOURS = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.ERROR: "red"}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look for settings that will lose items one day; exit code 3 if there are any."""
    findings = Client().checkup()
    if as_json:
        for finding in findings:
            click.echo(dumps(asdict(finding)))
    else:
        console = render.console()
        for finding in findings:
            line = Text(f"{finding.grade:8}", style=_COLOURS[finding.grade])
            line.append(finding.what, style="default")
            console.print(line, soft_wrap=True)
            if finding.cure:
                console.print(f"        -> {finding.cure}", soft_wrap=True, highlight=False)
    sys.exit(3 if any(finding.grade is Grade.ERROR for finding in findings) else 0)


@click.command()
@click.argument("batch_ids", metavar="[ID]...", nargs=-1)
@click.option("--older-than", metavar="7d", help="All that ended so long ago; s, m, h or d.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@json_option
def purge(batch_ids: tuple[str, ...], older_than: str | None, dry_run: bool, as_json: bool) -> None:
    """Delete batches that have ended, before BATCHORD_RESULT_TTL does, and runs that are kept."""
    if bool(batch_ids) == (older_than is not None):
        raise click.UsageError("name batches, or give --older-than")
    home = Settings().home
    if dry_run:
        _would_purge(batch_ids, older_than, home, as_json)
        return
    dropped = [name for name in batch_ids if discard(home, name)]
    if as_json:
        for name in dropped:
            click.echo(dumps({"id": name, "deleted": True}))
    elif dropped:
        click.echo(f"{len(dropped)} runs deleted")
    batch_ids = tuple(name for name in batch_ids if name not in dropped)
    if dropped and not batch_ids:
        return
    client = Client()
    ids = list(batch_ids) if older_than is None else [one.id for one in _older(client, older_than)]
    deleted = {batch_id: client.purge(batch_id) for batch_id in dict.fromkeys(ids)}
    if as_json:
        for batch_id, gone in deleted.items():
            click.echo(dumps({"id": batch_id, "deleted": gone}))
    else:
        click.echo(f"{sum(deleted.values())} batches deleted")
    going_on = [batch_id for batch_id, gone in deleted.items() if not gone]
    if going_on:
        raise click.UsageError(f"not ended, cancel first: {', '.join(going_on)}")


def _older(client: Client, older_than: str) -> list[BatchRecord]:
    age = timedelta(seconds=window_seconds(older_than, "--older-than") or 0)
    return client.ended_before(datetime.now(UTC) - age)


def _would_purge(
    batch_ids: tuple[str, ...], older_than: str | None, home: Path, as_json: bool
) -> None:
    """Say what `purge` would delete, and which of the named batches have not ended."""
    runs = {each.id for each in unfinished(home)}
    kept = [name for name in batch_ids if name in runs]
    others = [name for name in dict.fromkeys(batch_ids) if name not in runs]
    records = []
    if others or older_than is not None:
        client = Client()
        found = [client.retrieve(name).record() for name in others]
        records = found if older_than is None else _older(client, older_than)
    if as_json:
        for name in kept:
            click.echo(dumps({"id": name, "would_delete": True}))
        for record in records:
            click.echo(dumps({"id": record.id, "would_delete": record.status.ended}))
        return
    ended = [record for record in records if record.status.ended]
    if ended:
        out = render.console()
        out.print(render.batches_table(ended, width=out.width))
    click.echo(f"{len(ended) + len(kept)} would be deleted, nothing is")
    for record in records:
        if not record.status.ended:
            click.echo(f"not ended, cancel first: {record.id}", err=True)


@click.command()
@click.argument("batch_id", metavar="[ID]", required=False)
@json_option
def audit(batch_id: str | None, as_json: bool) -> None:
    """Say who paused, resumed, cancelled or retried a batch; without an ID, who purged which.

    A program and the command line are named as user@host, users of Flower as flower:NAME, tenants
    of `batchord serve` as serve:NAME.
    """
    lines = Client().audit(batch_id)
    if as_json:
        for line in lines:
            click.echo(line.model_dump_json())
        return
    out = render.console()
    for line in lines:
        when = line.at.strftime("%Y-%m-%d %H:%M:%S UTC")
        what = f" {line.batch_id}" if batch_id is None else ""
        out.print(f"{when}  {line.did}{what}  by {render.one_line(line.by, 100)}", soft_wrap=True)
    if not lines:
        click.echo("nobody has done anything to it" if batch_id else "nothing was purged", err=True)


@click.command()
@click.option(
    "--batches", type=click.IntRange(1, 2000), default=100, show_default=True, help="The newest."
)
@json_option
def failures(batches: int, as_json: bool) -> None:
    """Say what has failed across batches: by chain and code, most items first.

    `batchord errors ID` has the items of one, and `batchord retry ID --code CODE` runs them again.
    """
    found = Client().failures(limit=batches)
    if as_json:
        for one in found:
            click.echo(one.model_dump_json())
    elif found:
        render.console().print(render.failure_sums_table(found))
    else:
        click.echo("no failed items", err=True)


COMMANDS = (doctor, purge, audit, failures)
