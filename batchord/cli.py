"""The command line.

Exit codes: 0 all good, 2 wrong usage or bad input, 3 some items failed, 4 the batch failed, 5
stopped after a sample, 130 interrupted. JSON goes to stdout with `--json`; progress, tables and
errors go to stderr.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from batchord.command_table import GROUPS, Commands

if TYPE_CHECKING:
    from pydantic import ValidationError


class _Refusal(click.ClickException):
    exit_code = 2


class _Program(click.Group):
    """Turns our errors into one line that names the cure, and exit code 2."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups, each with its whole first sentence."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, said) for name, (_, said) in commands.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _one_line():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "batchord"
        raise _refusal(f"{error.format_message()} (see: {path} --help)") from error
    except (click.exceptions.Exit, click.ClickException, click.Abort):
        raise
    except KeyboardInterrupt:
        click.echo("Interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        raise _refusal(message) from error


def _message(error: Exception) -> str | None:
    """Return the line for an error of Batchord's, or of a setting; None for any other error."""
    # Imported here: what `--help` says needs none of it.
    from pydantic import ValidationError

    from batchord.chains.errors import BatchordError

    if isinstance(error, ValidationError):
        return _settings_problem(error)
    return str(error) if isinstance(error, BatchordError) else None


@click.group(
    cls=_Program,
    commands=Commands(),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Completion of commands and options in bash (zsh, fish alike), for ~/.bashrc: "
    'eval "$(_BATCHORD_COMPLETE=bash_source batchord)"',
)
@click.version_option(package_name="batchord")
def program() -> None:
    """Run one LLM chain over many inputs as a durable Celery batch.

    \b
    Begin with a module that registers a chain, and a file with one JSON input a line:
      batchord run triage --chains triage -i tickets.jsonl -o results.jsonl
    `batchord COMMAND --help` tells more.
    """
    from batchord.ledger.core.json_logs import log_json_to_stderr
    from batchord.ledger.settings import Settings, misspelt

    if Settings().log_format == "json":
        log_json_to_stderr(logging.WARNING)
    else:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for line in misspelt(os.environ):
        click.echo(line, err=True)


def main() -> None:
    """Run the command line (the console script)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C, so that nothing is left running and no folder behind; nohup stays nohup.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    program(prog_name="batchord")


def _refusal(message: str) -> click.ClickException:
    return _Refusal(" ".join(message.split()))


def _settings_problem(error: "ValidationError") -> str:
    found = error.errors(include_url=False, include_input=False)
    return "; ".join(
        f"BATCHORD_{'_'.join(str(part) for part in each['loc']).upper()}: {each['msg']}"
        for each in found
    )
