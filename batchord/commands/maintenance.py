"""Commands that look after a deployment: doctor, purge."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from json import dumps

import click
from rich.text import Text

from batchord.commands.options import json_option
from batchord.ledger.lifecycle.diagnostics import Grade
from batchord.ledger.settings import Settings
from batchord.local.run_state import discard
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
@json_option
def purge(batch_ids: tuple[str, ...], older_than: str | None, as_json: bool) -> None:
    """Delete batches that have ended, before BATCHORD_RESULT_TTL does, and runs that are kept."""
    if bool(batch_ids) == (older_than is not None):
        raise click.UsageError("name batches, or give --older-than")
    home = Settings().home
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
    ids = list(batch_ids)
    if older_than is not None:
        age = timedelta(seconds=window_seconds(older_than, "--older-than") or 0)
        ids = [record.id for record in client.ended_before(datetime.now(UTC) - age)]
    deleted = {batch_id: client.purge(batch_id) for batch_id in dict.fromkeys(ids)}
    if as_json:
        for batch_id, gone in deleted.items():
            click.echo(dumps({"id": batch_id, "deleted": gone}))
    else:
        click.echo(f"{sum(deleted.values())} batches deleted")
    going_on = [batch_id for batch_id, gone in deleted.items() if not gone]
    if going_on:
        raise click.UsageError(f"not ended, cancel first: {', '.join(going_on)}")


COMMANDS = (doctor, purge)
