"""Commands about batches that run elsewhere: submit, look, read."""

import sys
from collections import Counter
from typing import IO, Literal

import click

from batchord import jsonl, money, render
from batchord.local import has_server
from batchord.options import (
    budget_of,
    chains_option,
    exit_code,
    input_option,
    json_option,
    settings_with,
    submit_options,
)
from ledger.models import Item, ItemStatus, announcements
from producer import Client

batch_argument = click.argument("batch_id", metavar="ID")


@click.command()
@click.argument("chain")
@input_option
@chains_option
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Up to 16 pairs.")
@click.option("--idempotency-key", help="The same key gives the same batch.")
@submit_options
@json_option
def submit(
    chain: str,
    source: IO[str],
    chains: str | None,
    metadata: tuple[str, ...],
    idempotency_key: str | None,
    max_concurrency: int | None,
    items_per_task: int | Literal["auto"],
    priority: int,
    completion_window: str | None,
    mode: Literal["live", "provider"],
    provider_retry: Literal["live"] | None,
    budget_usd: float | None,
    budget_tokens: int | None,
    as_json: bool,
) -> None:
    """Submit a file of inputs as a batch of CHAIN; prints its id and returns."""
    pairs = dict(_pair(text) for text in metadata)
    lines = jsonl.InputLines(source)
    batch = Client(settings=settings_with(chains)).submit(
        chain,
        lines,
        custom_ids=lines.custom_ids,
        metadata=pairs or None,
        idempotency_key=idempotency_key,
        max_concurrency=max_concurrency,
        items_per_task=items_per_task,
        priority=priority,
        completion_window=completion_window,
        mode=mode,
        provider_retry=provider_retry,
        budget=budget_of(budget_usd, budget_tokens),
    )
    click.echo(batch.record().model_dump_json() if as_json else batch.id)


@click.command()
@click.argument("chain")
@input_option
@chains_option
@json_option
def estimate(chain: str, source: IO[str], chains: str | None, as_json: bool) -> None:
    """Say what a batch of CHAIN over a file of inputs may use; nothing is submitted."""
    client = Client(settings=settings_with(chains))
    found = client.estimate(chain, jsonl.InputLines(source))
    if as_json:
        click.echo(found.model_dump_json())
    else:
        render.console().print(money.forecast(found), soft_wrap=True)


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--metadata")
    return key, value


@click.command()
@batch_argument
@json_option
def status(batch_id: str, as_json: bool) -> None:
    """Say how far a batch is."""
    record = Client().retrieve(batch_id).record()
    if as_json:
        click.echo(record.model_dump_json())
    else:
        render.console().print(render.summary(record))
    sys.exit(exit_code(record) if record.status.ended else 0)


@click.command()
@batch_argument
@json_option
def watch(batch_id: str, as_json: bool) -> None:
    """Follow a batch to its end; the exit code is the batch's."""
    record = render.follow(Client().retrieve(batch_id), render.console(stderr=True))
    if as_json:
        click.echo(record.model_dump_json())
    else:
        render.console().print(render.summary(record))
    sys.exit(exit_code(record))


@click.command()
@batch_argument
@click.option("--wait", is_flag=True, help="Follow the batch to its end first, item by item.")
def results(batch_id: str, wait: bool) -> None:
    """Write results to stdout as JSON lines, in input order: those that are there."""
    batch = Client().retrieve(batch_id)
    items = batch.results() if wait else (each for each in batch.items() if each.status.ended)
    count = 0
    for item in items:
        sys.stdout.write(jsonl.line(item))
        count += 1
    missing = batch.request_counts.total - count
    if missing:
        render.console(stderr=True).print(
            f"{missing} items have not ended yet; --wait waits for them"
        )


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
            sys.stdout.write(jsonl.line(item))
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
    """List batches, newest first."""
    records = Client().list(limit=limit, after=after)
    if as_json:
        for record in records:
            click.echo(record.model_dump_json())
    else:
        out = render.console()
        out.print(render.batches_table(records, width=out.width))


@click.command("chains")
@chains_option
@json_option
def chains_(chains: str | None, as_json: bool) -> None:
    """List the chains that workers have announced, and those of --chains."""
    settings = settings_with(chains)
    here = {each.name: each for each in announcements()}
    if not here or has_server(settings):
        here = Client(settings=settings).chains() | here
    known = [here[name] for name in sorted(here)]
    if as_json:
        for each in known:
            click.echo(each.model_dump_json())
    else:
        render.console().print(render.chains_table(known))


COMMANDS = (submit, estimate, status, watch, results, errors, list_, chains_)
