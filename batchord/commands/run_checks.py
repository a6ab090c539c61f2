"""Checks of a run before anything is started: its options, its settings, its first inputs."""

from dataclasses import replace
from typing import Any, Final

import click

from batchord.chains import ChainSpec, get_chain, pricing
from batchord.chains.openai import routes
from batchord.commands.chain_options import stands_for
from batchord.commands.durable_run import Again
from batchord.commands.options import How, reading_of
from batchord.commands.sampling import Sampling
from batchord.io.input_file import InputFile
from batchord.io.json_lines import InputLines
from batchord.ledger.lifecycle import webhook_policy
from batchord.ledger.settings import Settings
from batchord.local.local_model import find_weights
from batchord.output.result_writer import Format, Target
from batchord.producer.inputs import known_here
from batchord.producer.submission import check_first, check_suits
from batchord.producer.submit_options import Submission

#: The outputs of a prompt without a schema.
_TEXT: Final = {"type": "string"}


def check_options(
    chain: str | ChainSpec | None,
    format_: Format,
    how: How,
    sampling: Sampling | None,
    again: Again,
) -> None:
    """Raise UsageError for options that do not go together."""
    if chain is None and format_ == "npy":
        raise click.UsageError("npy is for a CHAIN whose outputs are vectors: answers are JSON")
    if chain is None and how["mode"] == "provider":
        raise click.UsageError(
            "--mode provider is for a CHAIN or a --prompt: a file of requests is one for the "
            "provider's Batch API as it is"
        )
    if sampling is not None:
        sampling.check(chain, how, again)


def check_before(
    settings: Settings,
    chain: str | ChainSpec,
    source: InputFile,
    target: Target,
    how: How,
    *,
    local_model: bool,
) -> None:
    """Raise before anything is started what would stop the workers, the submission or the writer.

    Raises:
        BatchordError, click.UsageError: the message names what to change.
    """
    if settings.chains or isinstance(chain, ChainSpec):
        get_chain(stands_for(chain))
    pricing.load(settings.prices)
    routes.load(settings.routes)
    webhook_policy.check(settings)
    if local_model:
        find_weights()
    target.check(_output_schema(chain))
    what = Submission(chain=chain, inputs=(), **how)
    check_suits(what, settings)
    if target.format != "openai":  # requests are checked where they are read, all of them
        lines = InputLines(source, reading_of(source))
        names = lines.custom_ids
        check_first(replace(what, inputs=lines, custom_ids=names), settings)


def _output_schema(chain: str | ChainSpec) -> dict[str, Any] | None:
    """Return the JSON schema of the outputs, as far as this process knows it."""
    if isinstance(chain, ChainSpec):
        return chain.output_schema if chain.prompt is None else chain.output_schema or _TEXT
    here = known_here(chain)
    return None if here is None else here.output_schema
