"""The command that runs a chain over a file on this machine: `run`."""

import sys
from functools import partial
from itertools import islice
from pathlib import Path

import click
from rich.console import Console

from batchord.chains import ChainSpec, get_chain, pricing
from batchord.chains.openai import routes
from batchord.chains.steps.raw_request import Attempts
from batchord.commands.chain_options import chain_options, stands_for
from batchord.commands.input_options import input_option
from batchord.commands.options import (
    How,
    attempts_options,
    chain_and_inputs,
    chains_option,
    exit_code,
    json_option,
    settings_with,
    submit_options,
    worker_options,
)
from batchord.commands.sampling import Sampling, sample_options
from batchord.io.input_file import InputFile
from batchord.io.paths import refuse_overwriting, writable
from batchord.ledger.lifecycle import webhook_policy
from batchord.ledger.models import BatchRecord, ItemStatus
from batchord.local.services import has_server, machine
from batchord.output import render
from batchord.output.result_writer import Format, Target, format_of, format_options
from batchord.output.watch import follow
from batchord.producer import Batch, Client

#: Failed items that are listed after a run; all of them are in the output file.
_FAILURES_SHOWN = 20


@click.command()
@chain_options
@input_option
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=writable,
    required=True,
    help="Results, in input order.",
)
@format_options
@chains_option
@worker_options
@attempts_options
@submit_options
@sample_options
@click.option("--local-model", is_flag=True, help="Use a small language model on this machine.")
@click.option(
    "--preview",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Results to show at the end.",
)
@json_option
def run(
    chain: str | ChainSpec | None,
    source: InputFile,
    path: Path,
    format_: Format | None,
    errors_path: Path | None,
    model: str | None,
    chains: str | None,
    processes: int,
    concurrency: int,
    attempts: Attempts,
    how: How,
    sampling: Sampling | None,
    local_model: bool,
    preview: int,
    as_json: bool,
) -> None:
    """Run CHAIN, or a --prompt, over a file of inputs, on this machine.

    Nothing need be started before.
    Uses the Redis and the workers that are there, starts what is not, and leaves nothing running.

    With neither, the file is one for OpenAI's Batch API or vLLM's run-batch, {custom_id, method,
    url, body} a line. Its requests go to OPENAI_BASE_URL one by one, and the results are lines
    as OpenAI writes them.
    """
    format_ = format_of(format_, path, "openai" if chain is None else "jsonl")
    if chain is None and format_ == "npy":
        raise click.UsageError("npy is for a CHAIN whose outputs are vectors: answers are JSON")
    refuse_overwriting(source.name, path, errors_path)
    if sampling is not None:
        sampling.check(chain, how)
        source.keep()  # it is read more than once
    target = Target(path, format_, errors_path)
    settings = settings_with(chains)
    chain, lines = chain_and_inputs(
        chain, source, settings, requests=format_ == "openai", model=model, attempts=attempts
    )
    if settings.chains or isinstance(chain, ChainSpec):
        get_chain(stands_for(chain))  # raises before anything is started
    pricing.load(settings.prices)  # so does this
    routes.load(settings.routes)
    webhook_policy.check(settings)
    out = render.console(stderr=True)
    # With --json, stdout is the record and nothing else.
    report = render.console(stderr=as_json)
    there = machine(
        settings,
        stands_for(chain),
        processes=processes,
        concurrency=concurrency,
        local_model=local_model,
        say=partial(out.print, soft_wrap=True),
    )
    with out.status("Starting what is not there ...") as status, there as ready:
        client = Client(settings=ready)
        if sampling is not None:
            status.stop()
            sampling.run(client, chain, source, how, out)
            how = {**how, "cache": True}
        batch = client.submit(
            chain,
            lines,
            custom_ids=lines.custom_ids,
            **how,
        )
        status.stop()
        record, where = _follow(batch, target, out)
        if record.status.ended:
            _report(batch, record, where, preview, report)
        else:
            out.print(_how_to_go_on(record, there=has_server(settings)), soft_wrap=True)
    if as_json:
        click.echo(record.model_dump_json())
    sys.exit(exit_code(record))


def _how_to_go_on(record: BatchRecord, *, there: bool) -> str:
    """Say what to do about a batch that is paused; `there`: its Redis stays."""
    spent = record.reason is not None and record.reason.code == "budget_exceeded"
    if there:
        what = "With a larger budget" if spent else "Mend it, then"
        options = " --budget-usd USD (or --budget-tokens N)" if spent else ""
        return f"{what}: batchord resume {record.id}{options}"
    return "Raise the budget, and run this again" if spent else "Mend it, and run this again"


def _follow(batch: Batch, target: Target, out: Console) -> tuple[BatchRecord, str]:
    """Follow the batch to its end, and write its results; return the record and where they are."""
    try:
        record = follow(batch, out, until_paused=True)
    except KeyboardInterrupt:
        count, where = target.write(batch, wait=False)
        out.print(f"\nInterrupted: the {count} items that had ended are in {where}")
        sys.exit(130)
    count, where = target.write(batch, wait=record.status.ended)
    if not record.status.ended:
        out.print(f"The {count} items that had ended are in {where}", soft_wrap=True)
    return record, where


def _report(batch: Batch, record: BatchRecord, where: str, preview: int, out: Console) -> None:
    """Say what came out: the first results, the failed items, the counts."""
    if preview:
        out.print(render.results_table(batch.results(), rows=preview, width=90))
    failed = record.request_counts.total - record.request_counts.succeeded
    if failed:
        found = (item for item in batch.items() if item.status is not ItemStatus.SUCCEEDED)
        out.print(render.failures_table(list(islice(found, _FAILURES_SHOWN))))
        if failed > _FAILURES_SHOWN:
            out.print(f"... and {failed - _FAILURES_SHOWN} more, all in {where}", soft_wrap=True)
    out.print(render.summary(record))
    out.print(f"Results: {where}", soft_wrap=True)


COMMANDS = (run,)
