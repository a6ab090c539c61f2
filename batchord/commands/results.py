"""Commands that read what a batch has given: its results, its errors."""

import sys
from collections import Counter

import click

from batchord.commands.batches import batch_argument
from batchord.commands.options import json_option
from batchord.io import openai_lines
from batchord.io.paths import output_option
from batchord.ledger.models import Item, ItemStatus
from batchord.output import render
from batchord.output.result_writer import Format, Target, format_of, format_options
from batchord.producer import Batch, Client
from batchord.producer.export import line
from batchord.producer.tables.remote_file import Destination


@click.command()
@batch_argument
@click.option("--wait", is_flag=True, help="Follow the batch to its end first, item by item.")
@output_option(help_="Write into this file, whole or not at all, and not to stdout.")
@format_options
@json_option
def results(
    batch_id: str,
    wait: bool,
    path: Destination | None,
    format_: Format | None,
    errors_path: Destination | None,
    as_json: bool,
) -> None:
    """Write the results that are there, in input order, as JSON lines to stdout or into a file.

    With --json and a file, stdout is an object that says where they are.
    """
    format_ = format_of(format_, path)
    if path is None and (format_ not in ("jsonl", "openai") or errors_path is not None):
        raise click.UsageError("a matrix, a table and --errors need a file: --output FILE")
    batch = Client().retrieve(batch_id)
    notes = render.console(stderr=True)
    if path is None:
        count = _to_stdout(batch, format_, wait=wait)
    else:
        count, where, _ = Target(path, format_, errors_path).write(batch, wait=wait)
        notes.print(f"{count} items are in {where}", soft_wrap=True)
        if as_json:
            click.echo(render.as_json({"id": batch_id, "items": count, "path": str(path)}))
    missing = batch.record().request_counts.total - count
    if missing:
        notes.print(f"{missing} items have not ended yet; --wait waits for them")


def _to_stdout(batch: Batch, format_: Format, *, wait: bool) -> int:
    count = 0
    for item in batch.results() if wait else batch.items():
        if item.status.ended:
            text = openai_lines.line(batch.id, item) if format_ == "openai" else line(item)
            sys.stdout.write(text)
            count += 1
    return count


@click.command()
@batch_argument
@click.option("--group-by", type=click.Choice(["code"]), help="Count instead of listing.")
@json_option
def errors(batch_id: str, group_by: str | None, as_json: bool) -> None:
    """List the failed items of a batch with their typed errors."""
    batch = Client().retrieve(batch_id)
    failed = (item for item in batch.items() if item.status is ItemStatus.FAILED)
    if group_by is not None:
        _group(list(failed), as_json)
    elif as_json:
        for item in failed:
            sys.stdout.write(line(item))
    else:
        found = list(failed)
        if found:
            render.console().print(render.failures_table(found))
        else:
            render.console().print("no failed items")


def _group(failed: list[Item], as_json: bool) -> None:
    groups: Counter[str] = Counter()
    examples: dict[str, Item] = {}
    for item in failed:
        code = item.error.code if item.error else str(item.status)
        groups[code] += 1
        examples.setdefault(code, item)
    if as_json:
        click.echo(render.as_json(dict(groups.most_common())))
    else:
        render.console().print(render.errors_table(groups, examples))


COMMANDS = (results, errors)
