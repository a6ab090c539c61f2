"""Commands about batches that run elsewhere: submit, look, read."""

import json
import sys
from collections import Counter
from pathlib import Path

import click

from batchord.chains import ChainSpec
from batchord.chains.steps.raw_request import Attempts
from batchord.commands.chain_options import chain_options
from batchord.commands.input_options import input_option
from batchord.commands.options import (
    How,
    attempts_options,
    chain_and_inputs,
    chains_option,
    exit_code,
    input_lines,
    json_option,
    settings_with,
    submit_options,
)
from batchord.commands.unfinished import runs_table
from batchord.io import openai_lines
from batchord.io.input_file import InputFile
from batchord.io.paths import output_option
from batchord.ledger.models import Item, ItemStatus, announcements
from batchord.ledger.settings import Settings
from batchord.ledger.storage.fleet import Fleet
from batchord.local.run_state import unfinished
from batchord.local.services import has_server
from batchord.output import cost_format, render, status_view
from batchord.output.result_writer import Format, Target, format_of, format_options
from batchord.output.watch import follow
from batchord.producer import Batch, Client
from batchord.producer.estimate import estimate_spec
from batchord.producer.export import line

batch_argument = click.argument("batch_id", metavar="ID")


@click.command()
@chain_options
@input_option
@chains_option
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Up to 16 pairs.")
@click.option("--idempotency-key", help="The same key gives the same batch.")
@click.option(
    "--allow-unserved", is_flag=True, help="Submit although no live worker has the chain yet."
)
@attempts_options
@submit_options
@json_option
def submit(
    chain: str | ChainSpec | None,
    source: InputFile,
    model: str | None,
    chains: str | None,
    metadata: tuple[str, ...],
    idempotency_key: str | None,
    allow_unserved: bool,
    attempts: Attempts,
    how: How,
    as_json: bool,
) -> None:
    """Submit a file of inputs as a batch of CHAIN or of a --prompt; prints its id and returns.

    With neither, the file is one for OpenAI's Batch API, as in `run`.
    """
    pairs = dict(_pair(text) for text in metadata)
    settings = settings_with(chains)
    chain, lines = chain_and_inputs(
        chain, source, settings, requests=False, model=model, attempts=attempts
    )
    batch = Client(settings=settings).submit(
        chain,
        lines,
        custom_ids=lines.custom_ids,
        metadata=pairs or None,
        idempotency_key=idempotency_key,
        allow_unserved=allow_unserved,
        **how,
    )
    click.echo(batch.record().model_dump_json() if as_json else batch.id)


@click.command()
@chain_options
@input_option
@chains_option
@json_option
def estimate(
    chain: str | ChainSpec | None,
    model: str | None,
    source: InputFile,
    chains: str | None,
    as_json: bool,
) -> None:
    """Say what a batch of CHAIN or of a --prompt over a file of inputs may use.

    Nothing is submitted; for a --prompt no Redis is needed.
    """
    if chain is None:
        raise click.UsageError("name the CHAIN, or give a --prompt")
    if model is not None:
        raise click.UsageError("--model goes with --prompt or --embed: a chain has its own")
    settings, lines = settings_with(chains), input_lines(source)
    if isinstance(chain, ChainSpec) and not has_server(settings):
        found = estimate_spec(settings, chain, lines)
    else:
        found = Client(settings=settings).estimate(chain, lines)
    if as_json:
        click.echo(found.model_dump_json())
    else:
        render.console().print(cost_format.forecast(found), soft_wrap=True)


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--metadata")
    return key, value


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


@click.command()
@batch_argument
@click.option("--wait", is_flag=True, help="Follow the batch to its end first, item by item.")
@output_option(help_="Write into this file, whole or not at all, and not to stdout.")
@format_options
@json_option
def results(
    batch_id: str,
    wait: bool,
    path: Path | None,
    format_: Format | None,
    errors_path: Path | None,
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


COMMANDS = (submit, estimate, status, watch, results, errors, list_, chains_)
