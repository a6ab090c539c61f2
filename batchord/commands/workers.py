"""The command `workers`: who is alive, and what each does."""

import click

from batchord.commands.options import json_option
from batchord.output import render, worker_table
from batchord.producer import Client


@click.command()
@json_option
def workers(as_json: bool) -> None:
    """List the workers that are alive: what each has, and what it runs.

    A worker is listed until 20 s after its last word. With --json, an object a line for each.
    """
    fleet = Client().fleet()
    if as_json:
        for each in fleet.told():
            click.echo(render.as_json(each))
    elif fleet.workers:
        render.console().print(worker_table.table(fleet))
    if trouble := fleet.trouble():
        click.echo(trouble, err=True)


COMMANDS = (workers,)
