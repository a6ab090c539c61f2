"""The command that runs a chain over a file on this machine: `run`."""

import sys
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

import click
from rich.console import Console

from batchord.chains import ChainSpec
from batchord.chains.steps.raw_request import Attempts
from batchord.commands.chain_options import chain_options, name_of, stands_for
from batchord.commands.durable_run import (
    Again,
    again_options,
    begun,
    check_state,
    finish,
    run_state,
)
from batchord.commands.input_options import input_option
from batchord.commands.only_new import only_new
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
from batchord.commands.run_checks import check_before, check_options
from batchord.commands.run_results import RunResults
from batchord.commands.sampling import Sampling, after_sample, sample_options
from batchord.io.input_file import InputFile
from batchord.io.located import Locate
from batchord.io.paths import output_option, refuse_overwriting
from batchord.ledger.models import BatchRecord, ItemStatus
from batchord.ledger.settings import Settings
from batchord.local.run_state import RunState
from batchord.local.services import machine, needs_own_server
from batchord.output import render
from batchord.output.result_writer import Format, Target, format_of, format_options
from batchord.output.watch import follow
from batchord.producer import Batch, Client
from batchord.producer.tables.remote_file import Destination

#: Failed items that are listed after a run; all of them are in the output file.
_FAILURES_SHOWN = 20


@click.command()
@chain_options
@input_option
@output_option(required=True, help_="Results, in input order.")
@format_options
@chains_option
@worker_options
@attempts_options
@submit_options
@sample_options
@again_options
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
    path: Destination,
    format_: Format | None,
    errors_path: Destination | None,
    model: str | None,
    chains: str | None,
    processes: int,
    concurrency: int,
    attempts: Attempts,
    how: How,
    sampling: Sampling | None,
    again: Again,
    local_model: bool,
    preview: int,
    as_json: bool,
) -> None:
    """Run CHAIN, or a --prompt, over a file of inputs, on this machine.

    Nothing need be started before.
    Uses the Redis and the workers that are there, starts what is not, and leaves nothing running.
    After an interruption, whatever it was, the same command goes on where it was.

    With neither, the file is one for OpenAI's Batch API or vLLM's run-batch, {custom_id, method,
    url, body} a line. Its requests go to OPENAI_BASE_URL one by one, and the results are lines
    as OpenAI writes them.
    """
    format_ = format_of(format_, path, "openai" if chain is None else "jsonl")
    check_options(chain, format_, how, sampling, again)
    refuse_overwriting(source, path, errors_path)
    target = Target(path, format_, errors_path)
    settings = settings_with(chains)
    source.keep()  # it is read more than once
    chain, lines = chain_and_inputs(
        chain, source, settings, requests=format_ == "openai", model=model, attempts=attempts
    )
    tried: How = how if sampling is None else {**how, "cache": True}
    check_before(settings, chain, source, target, tried, local_model=local_model)
    out = render.console(stderr=True)
    # With --json, stdout is the record and nothing else.
    report = render.console(stderr=as_json)
    name = name_of(chain)
    new = only_new(target, source, name, settings, out) if again.only_new else None
    results = RunResults(target, source, settings, name, new)
    if new is not None:
        kept, left = new.merged.counts()
        out.print(f"{kept} rows keep the answers in {path}, {left} rows run", soft_wrap=True)
        if not left:
            results.write(None, wait=True)
            return
        lines = new.inputs()
    how_read = [format_, model, attempts.model_dump(), new and new.digest]
    state = run_state(settings, source, name, path, how_read)
    here = partial(machine, processes=processes, concurrency=concurrency, local_model=local_model)

    def submit(client: Client, key: str) -> Batch:
        options = after_sample(sampling, client, state, chain, source, how, out)
        names = lines.custom_ids
        return client.submit(chain, lines, custom_ids=names, idempotency_key=key, **options)

    with state:
        check_state(state, again, settings)
        served = stands_for(chain)
        there = here(settings, served, data=_server_of(settings, served, state, local_model, out))
        with ExitStack() as started:
            with out.status("Starting what is not there ..."):
                ready = started.enter_context(there)
            batch = begun(Client(settings=ready), state, submit, how["budget"], again, out)
            record = _carry_out(batch, results, state, preview, report, out)
        finish(state, record, again, out)
    if as_json:
        click.echo(record.model_dump_json())
    sys.exit(exit_code(record))


def _server_of(
    settings: Settings, chain: str, state: RunState, local_model: bool, out: Console
) -> Path | None:
    """Decide at a run's first start whether its ledger is its own; return the folder, if it is."""
    if not state.resumed:
        say = partial(out.print, soft_wrap=True)
        own = needs_own_server(settings, chain, local_model=local_model, say=say)
        state.save(own_server=own)
    return state.data


def _carry_out(
    batch: Batch, results: RunResults, state: RunState, preview: int, report: Console, out: Console
) -> BatchRecord:
    """Follow the batch, write its results, and say what came out; return its record."""
    record, where = _follow(batch, results, state, out)
    if record.status.ended:
        _report(batch, record, where, preview, results.locate, report)
    else:
        out.print(_how_to_go_on(record, there=state.data is None), soft_wrap=True)
    return record


def _how_to_go_on(record: BatchRecord, *, there: bool) -> str:
    """Say what to do about a batch that is paused; `there`: its Redis stays."""
    spent = record.reason is not None and record.reason.code == "budget_exceeded"
    if there:
        what = "With a larger budget" if spent else "Mend it, then"
        options = " --budget-usd USD (or --budget-tokens N)" if spent else ""
        return f"{what}: batchord resume {record.id}{options}"
    what = "Run this again with a larger budget" if spent else "Mend it, and run this again"
    return f"{what}: it goes on where it was"


def _follow(
    batch: Batch, results: RunResults, state: RunState, out: Console
) -> tuple[BatchRecord, str]:
    """Follow the batch to its end, and write its results; return the record and where they are."""
    try:
        record = follow(batch, out, until_paused=True)
    except KeyboardInterrupt:
        out.print(
            f"\nInterrupted: {results.write_ended(batch)}\nRun the same command again to go on",
            soft_wrap=True,
        )
        state.save(done=batch.record().request_counts.done)
        sys.exit(130)
    if record.status.ended:
        return record, _written(batch, results, out)
    ended = results.write_ended(batch)
    out.print(f"{ended[0].upper()}{ended[1:]}", soft_wrap=True)
    return record, ""


def _written(batch: Batch, results: RunResults, out: Console) -> str:
    """Write the results of a batch that has ended, and return where they are."""
    try:
        return results.write(batch, wait=True).where
    except KeyboardInterrupt:
        out.print(
            f"\nInterrupted: {results.target.path} is as it was\nRun the same command again to "
            "have the results written",
            soft_wrap=True,
        )
        sys.exit(130)


def _report(
    batch: Batch, record: BatchRecord, where: str, preview: int, locate: Locate, out: Console
) -> None:
    """Say what came out: the first results, the failed items, the counts."""
    if preview:
        out.print(render.results_table(locate(batch.results()), rows=preview, width=90))
    failed = record.request_counts.total - record.request_counts.succeeded
    if failed:
        found = (item for item in locate(batch.items()) if item.status is not ItemStatus.SUCCEEDED)
        out.print(render.failures_table(list(islice(found, _FAILURES_SHOWN))))
        if failed > _FAILURES_SHOWN:
            out.print(f"... and {failed - _FAILURES_SHOWN} more, all in {where}", soft_wrap=True)
    out.print(render.summary(record))
    out.print(f"Results: {where}", soft_wrap=True)


COMMANDS = (run,)
