"""A look at the first rows, and at what all of them would cost, before a run goes on."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from itertools import islice
from typing import Any, Final, TypeVar, cast

import click
from rich.console import Console

from batchord.chains import ChainSpec
from batchord.commands.durable_run import Again, retried
from batchord.commands.options import BATCH_FAILED, How, reading_of
from batchord.io.input_file import InputFile
from batchord.io.json_lines import InputLines
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.local.run_state import RunState
from batchord.output import cost_format, sample_view
from batchord.output.watch import follow
from batchord.producer import Batch, Client

F = TypeVar("F", bound=Callable[..., Any])

#: The status of a run of which only the sample has run.
_SAMPLED: Final = "sampled"
#: The exit code of a run that ended after its sample.
ONLY_SAMPLED: Final = 5


@dataclass(frozen=True)
class Sampling:
    """How many rows run first, and whether the rest follows without a question."""

    rows: int
    yes: bool

    def check(self, chain: str | ChainSpec | None, how: How, again: Again) -> None:
        """Refuse what could not use the sample's answers again; raise UsageError."""
        if chain is None:
            raise click.UsageError("--sample is for a CHAIN or a --prompt, not for requests")
        if again.only_new:
            raise click.UsageError(
                "--sample runs rows that --only-new would keep: give one of them"
            )
        if how["mode"] == "provider":
            raise click.UsageError(
                "--sample calls the model live, and its answers would be paid again by --mode "
                "provider: leave out one of them"
            )

    def run(
        self,
        client: Client,
        state: RunState,
        chain: str | ChainSpec,
        source: InputFile,
        how: How,
        out: Console,
    ) -> None:
        """Run the first rows and show them; end the program unless the run is to go on.

        Their answers stay in the cache, in which a batch with the option `cache` finds them.
        """
        first, batch, record = _answered(client, state, chain, source, self.rows, how, out)
        items = list(batch.items())
        total = sum(1 for _ in source)
        out.print(sample_view.table(first, items, record.usage))
        out.print(cost_format.whole(items, total), soft_wrap=True)
        if len(first) == total or self.yes:
            return
        state.save(status=_SAMPLED, total=total, done=len(first))
        if not sys.stdin.isatty() or source.name == "-":
            out.print(
                f"Stopped after the sample, as nobody can be asked: --yes runs all {total:,} rows",
                soft_wrap=True,
            )
            sys.exit(ONLY_SAMPLED)
        try:
            go_on = click.confirm(f"Run all {total:,} rows?", err=True)
        except click.Abort:
            raise KeyboardInterrupt from None
        if not go_on:
            sys.exit(ONLY_SAMPLED)


def after_sample(
    sampling: Sampling | None,
    client: Client,
    state: RunState,
    chain: str | ChainSpec,
    source: InputFile,
    how: How,
    out: Console,
) -> How:
    """Return the options of the run's batch, after its sample.

    A sample that an earlier process has begun is carried out first, whatever is asked for now: its
    rows would run a second time beside it.
    """
    earlier = state.record.sample
    if earlier is None and sampling is None:
        return how
    try:
        if earlier is not None and (sampling is None or sampling.rows != earlier):
            _answered(client, state, chain, source, earlier, how, out)
        if sampling is not None:
            sampling.run(client, state, chain, source, how, out)
    except KeyboardInterrupt:
        out.print(
            "\nInterrupted: the answers of the sample are kept\nRun the same command again to go on"
        )
        sys.exit(130)
    return how if how["mode"] == "provider" else {**how, "cache": True}


def _answered(
    client: Client,
    state: RunState,
    chain: str | ChainSpec,
    source: InputFile,
    rows: int,
    how: How,
    out: Console,
) -> tuple[list[Any], Batch, BatchRecord]:
    """Run the first rows, or what an earlier process has left of them.

    Return the rows, their batch and its record. End the program if the batch is paused.
    """
    first = list(islice(InputLines(source, reading_of(source)), rows))
    state.save(sample=rows)
    live: How = {**how, "cache": True, "mode": "live", "provider_retry": None}
    # The same key gives the same batch: what is answered is not asked again.
    batch = client.submit(chain, first, idempotency_key=f"{state.record.key}-sample-{rows}", **live)
    record = batch.record()
    if record.status.ended:
        retried(batch, record, out)
    elif record.status is BatchStatus.PAUSED:
        batch.resume(budget=how["budget"])
    record = follow(batch, out, until_paused=True)
    if not record.status.ended:
        out.print(f"The sample is paused; mend it, then run this again ({batch.id})")
        sys.exit(BATCH_FAILED)
    return first, batch, record


def sample_options(command: F) -> F:
    """Add the sample; the command gets it as `sampling`, None without one."""

    @wraps(command)
    def with_sampling(*args: Any, sample: int | None, yes: bool, **given: Any) -> Any:
        sampling = None if sample is None else Sampling(sample, yes)
        return command(*args, sampling=sampling, **given)

    command_with_options: Any = with_sampling
    for option in (
        click.option("--yes", is_flag=True, help="With --sample: go on without a question."),
        click.option(
            "--sample",
            type=click.IntRange(1, 1000),
            metavar="N",
            help="Run the first N rows, show answers, tokens and what all rows would cost, and ask "
            "whether to go on. Answers of the sample are not paid again, as by --cache.",
        ),
    ):
        command_with_options = option(command_with_options)
    return cast(F, command_with_options)
