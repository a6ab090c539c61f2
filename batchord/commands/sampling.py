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
from batchord.commands.durable_run import Again
from batchord.commands.options import BATCH_FAILED, How, input_lines
from batchord.io.input_file import InputFile
from batchord.output import cost_format, sample_view
from batchord.output.watch import follow
from batchord.producer import Client

F = TypeVar("F", bound=Callable[..., Any])

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
        self, client: Client, chain: str | ChainSpec, source: InputFile, how: How, out: Console
    ) -> How:
        """Run the first rows and show them; end the program unless the run is to go on.

        Return the options of a batch that finds their answers in the cache, where they stay.
        """
        first = list(islice(input_lines(source), self.rows))
        cached: How = {**how, "cache": True}
        batch = client.submit(chain, first, **cached)
        record = follow(batch, out, until_paused=True)
        if not record.status.ended:
            out.print(f"The sample is paused; mend it, then run this again ({batch.id})")
            sys.exit(BATCH_FAILED)
        items = list(batch.items())
        total = sum(1 for _ in source)
        out.print(sample_view.table(first, items, record.usage))
        out.print(cost_format.whole(items, total), soft_wrap=True)
        if len(first) == total or self.yes:
            return cached
        if not sys.stdin.isatty() or source.name == "-":
            out.print(
                f"Stopped after the sample, as nobody can be asked: --yes runs all {total:,} rows",
                soft_wrap=True,
            )
            sys.exit(ONLY_SAMPLED)
        if not click.confirm(f"Run all {total:,} rows?", err=True):
            sys.exit(ONLY_SAMPLED)
        return cached


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
