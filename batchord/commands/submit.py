"""Commands about a batch that is yet to be: submit it, estimate it."""

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
    input_lines,
    json_option,
    settings_with,
    submit_options,
)
from batchord.io.input_file import InputFile
from batchord.local.services import has_server
from batchord.output import cost_format, render
from batchord.producer import Client
from batchord.producer.estimate import estimate_spec


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


COMMANDS = (submit, estimate)
