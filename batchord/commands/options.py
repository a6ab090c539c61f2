"""Parts that commands share: options, settings, and exit codes of ended batches."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, Literal, TypedDict, TypeVar, cast

import click

from batchord.chains import ChainSpec
from batchord.chains.steps.raw_request import REQUESTS, Attempts, register_requests
from batchord.io import json_lines, openai_lines, row_ids
from batchord.io.input_file import InputFile
from batchord.ledger.budget import Budget
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.keys import PAGE_SIZE
from batchord.local.services import import_chains
from batchord.producer.submit_options import DEFAULT_PRIORITY

F = TypeVar("F", bound=Callable[..., Any])

ALL_GOOD, SOME_FAILED, BATCH_FAILED = 0, 3, 4

json_option = click.option("--json", "as_json", is_flag=True, help="JSON to stdout.")
chains_option = click.option(
    "--chains",
    metavar="MODULE,...",
    help="Modules that register chains, or their files (./triage.py) [BATCHORD_CHAINS].",
)


chain_argument = click.argument("chain", required=False)
model_option = click.option(
    "-m",
    "--model",
    help="Ask this model: with --prompt or --embed [OPENAI_MODEL], or in place of those that the "
    "requests of a file name.",
)


def attempts_options(command: F) -> F:
    """Add how patiently the requests of a file are made; the command gets it as `attempts`."""

    @wraps(command)
    def with_attempts(*args: Any, **given: Any) -> Any:
        attempts = Attempts(
            max_attempts=given.pop("max_attempts"),
            timeout=given.pop("request_timeout"),
            outage_patience=given.pop("outage_patience"),
        )
        return command(*args, attempts=attempts, **given)

    command_with_options: Any = with_attempts
    for option in (
        click.option(
            "--max-attempts",
            type=click.IntRange(1, 100),
            metavar="N",
            help="Calls of a request in all, if its error may pass (without CHAIN) [3].",
        ),
        click.option(
            "--request-timeout",
            type=click.FloatRange(0, min_open=True),
            metavar="S",
            help="Seconds for one call of a request (without CHAIN) [600].",
        ),
        click.option(
            "--outage-patience",
            type=click.FloatRange(0),
            metavar="S",
            help="Seconds for which a provider that is down is waited for (without CHAIN) "
            "[BATCHORD_OUTAGE_PATIENCE, 3600].",
        ),
    ):
        command_with_options = option(command_with_options)
    return cast(F, command_with_options)


def reading_of(source: InputFile) -> json_lines.Reading:
    """Return what gives the input and the custom_id in a value of the file."""
    if source.id_column is None:
        return json_lines.input_of
    return row_ids.named_by(source.id_column, source)


def input_lines(source: InputFile) -> json_lines.InputLines:
    """Return the inputs of a file; with --id, the ids of all rows are checked first."""
    if source.id_column is not None:
        row_ids.check_ids(source.id_column, source)
    return json_lines.InputLines(source, reading_of(source))


def chain_and_inputs(
    chain: str | ChainSpec | None,
    source: InputFile,
    settings: Settings,
    *,
    requests: bool,
    model: str | None,
    attempts: Attempts | None = None,
) -> tuple[str | ChainSpec, json_lines.InputLines]:
    """Return the chain, and what the lines of the source are to it.

    `requests`: they are OpenAI's; without a chain they must be. They are checked as a whole.
    """
    if not isinstance(chain, str):
        register_requests()  # what every worker has, and this process too
    if requests and isinstance(chain, ChainSpec):
        raise click.UsageError(
            "--format openai is for requests and chains of Request, not a prompt"
        )
    if chain is None or (requests and isinstance(chain, str)):
        if source.id_column is not None:
            raise click.UsageError("--id is for a CHAIN: requests have a custom_id each")
        lines = openai_lines.requests(source, settings, model=model, attempts=attempts)
        return chain or REQUESTS, lines
    if attempts is not None and attempts != Attempts():
        raise click.UsageError(
            "--max-attempts, --request-timeout and --outage-patience are for requests: a chain has "
            "its own"
        )
    if model is not None:
        raise click.UsageError(
            "--model goes with --prompt, --embed or requests: a registered chain has its own"
        )
    return chain, input_lines(source)


class ItemsPerTask(click.ParamType[Any]):
    """A number, or "auto"."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number or the word, else fail."""
        if value == "auto":
            return value
        return click.IntRange(1, PAGE_SIZE).convert(value, param, ctx)


class How(TypedDict):
    """How a batch is cut, served and paid for, as `Client.submit` takes it."""

    max_concurrency: int | None
    items_per_task: int | Literal["auto"]
    priority: int
    completion_window: str | None
    mode: Literal["live", "provider"]
    provider_retry: Literal["live"] | None
    dedupe: bool
    cache: bool
    budget: Budget | None


_SUBMIT_OPTIONS: Final = (
    click.option("--max-concurrency", type=click.IntRange(1), help="Items in flight at a time."),
    click.option(
        "--items-per-task",
        type=ItemsPerTask(),
        default="auto",
        show_default=True,
        help="Items that one Celery task carries.",
    ),
    click.option(
        "--priority",
        type=click.IntRange(0, 9),
        default=DEFAULT_PRIORITY,
        show_default=True,
        help="0 is served first, 9 last.",
    ),
    click.option(
        "--completion-window",
        metavar="24h",
        help="What has no outcome by then expires; s, m, h or d.",
    ),
    click.option(
        "--mode",
        type=click.Choice(["live", "provider"]),
        default="live",
        show_default=True,
        help="provider: through the provider's own Batch API, cheaper and within a day.",
    ),
    click.option(
        "--provider-retry",
        type=click.Choice(["live"]),
        help="Call here what the provider's batch gave no good answer to.",
    ),
    click.option("--dedupe", is_flag=True, help="Run identical inputs once."),
    click.option("--cache", is_flag=True, help="Use outputs of earlier batches again."),
)


def submit_options(command: F) -> F:
    """Add how a batch is cut, served and paid for; the command gets it as `how`."""

    @wraps(command)
    def with_how(
        *args: Any, budget_usd: float | None, budget_tokens: int | None, **given: Any
    ) -> Any:
        chosen = {name: given.pop(name) for name in How.__annotations__ if name != "budget"}
        how = {**chosen, "budget": budget_of(budget_usd, budget_tokens)}
        return command(*args, how=how, **given)

    command_with_options: Any = with_how
    for option in _SUBMIT_OPTIONS:
        command_with_options = option(command_with_options)
    return cast(F, budget_options(command_with_options))


def budget_options(command: F) -> F:
    """Add what a batch may use before it pauses."""
    for option in (
        click.option(
            "--budget-usd", type=float, metavar="USD", help="Pause once so much is spent."
        ),
        click.option(
            "--budget-tokens", type=int, metavar="N", help="Pause once N tokens are used."
        ),
    ):
        command = option(command)
    return command


def budget_of(usd: float | None, tokens: int | None) -> Budget | None:
    """Return the budget of these options; None if none was given."""
    return None if usd is None and tokens is None else Budget(usd=usd, tokens=tokens)


def worker_options(command: F) -> F:
    """Add how many workers to run."""
    for option in (
        click.option(
            "--processes",
            type=click.IntRange(1, 256),
            default=min(2, os.cpu_count() or 1),
            show_default=True,
            help="Worker processes.",
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(1, 1000),
            default=32,
            show_default=True,
            help="Items in flight per process.",
        ),
    ):
        command = option(command)
    return command


def settings_with(chains: str | None) -> Settings:
    """Return the settings; their chain modules are imported, so that they are known here too."""
    settings = Settings() if chains is None else Settings(chains=chains)  # type: ignore[arg-type]
    import_chains(settings.chains)
    return settings


def exit_code(record: BatchRecord) -> int:
    """Return what a batch's end means to a script."""
    if record.status is not BatchStatus.COMPLETED:
        return BATCH_FAILED
    return SOME_FAILED if record.request_counts.failed else ALL_GOOD
