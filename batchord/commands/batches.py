"""Commands about batches that run elsewhere: look at one, follow it, list them and the chains."""

import json
import sys

import click

from batchord.commands.options import chains_option, exit_code, json_option, settings_with
from batchord.commands.unfinished import runs_table
from batchord.ledger.models import announcements
from batchord.ledger.settings import Settings
from batchord.ledger.storage.fleet import Fleet
from batchord.local.run_state import unfinished
from batchord.local.services import has_server
from batchord.output import render, status_view
from batchord.output.watch import follow
from batchord.producer import Client

batch_argument = click.argument("batch_id", metavar="ID")


@click.command()
@batch_argument
@json_option
def status(batch_id: str, as_json: bool) -> None:
    """Say how far a batch is, what fails and why, and what it costs.

    The exit code is the batch's once it has ended (see: batchord watch --help), and 0 before. With
    --json, `progress` has the rate, the ETA and the failures by code.
    """
    batch = Client().retrieve(batch_id)
    record, progress, waiting = batch.record(), batch.progress(), batch.why_waiting()
    if as_json:
        click.echo(status_view.as_json(record, progress, waiting))
    else:
        render.console().print(status_view.table(record, progress, waiting), soft_wrap=True)
    sys.exit(exit_code(record) if record.status.ended else 0)


@click.command()
@batch_argument
@json_option
def watch(batch_id: str, as_json: bool) -> None:
    """Follow a batch to its end, and exit as it ended.

    Progress goes to stderr: a live view in a terminal, a line every five seconds where there is
    none. The last record goes to stdout. Ctrl-C stops the watching; the batch goes on.

    \b
    Exit codes:
      0    completed, and every item succeeded
      2    there is no such batch, or Redis cannot be reached
      3    completed, and some items failed
      4    failed, expired or cancelled
      130  interrupted; the batch goes on
    """
    batch = Client().retrieve(batch_id)
    out = render.console(stderr=True)
    try:
        record = follow(batch, out)
    except KeyboardInterrupt:
        out.print(
            "Stopped watching; the batch goes on.\n"
            f"  look again: batchord watch {batch_id}\n"
            f"  end it:     batchord cancel {batch_id}"
        )
        sys.exit(130)
    if as_json:
        click.echo(record.model_dump_json())
    else:
        render.console().print(render.summary(record))
    sys.exit(exit_code(record))


@click.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--after", metavar="ID", help="The next page: behind this batch.")
@json_option
def list_(limit: int, after: str | None, as_json: bool) -> None:
    """List batches, newest first, and runs that `batchord run` can go on with."""
    settings = Settings()
    runs = unfinished(settings.home) if after is None else []
    records = []
    if not runs or has_server(settings):
        records = Client(settings=settings).list(limit=limit, after=after)
    if as_json:
        for record in (*runs, *records):
            click.echo(record.model_dump_json())
        return
    out = render.console()
    if runs:
        out.print(runs_table(runs))
    if records or not runs:
        out.print(render.batches_table(records, width=out.width))


@click.command("chains")
@chains_option
@json_option
def chains_(chains: str | None, as_json: bool) -> None:
    """List the chains that live workers have, and those of --chains."""
    settings = settings_with(chains)
    here = {each.name: each for each in announcements()}
    fleet = Fleet({})
    if not here or has_server(settings):
        client = Client(settings=settings)
        fleet = client.fleet()
        here = client.chains() | here
        if trouble := fleet.trouble():
            click.echo(trouble, err=True)
    known = [(here[name], len(fleet.serving(name))) for name in sorted(here)]
    if as_json:
        for each, workers in known:
            click.echo(json.dumps({**each.model_dump(mode="json"), "workers": workers}))
    else:
        render.console().print(render.chains_table(known))


COMMANDS = (status, watch, list_, chains_)
