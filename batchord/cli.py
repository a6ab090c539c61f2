"""The command line.

Exit codes: 0 all good, 2 wrong usage or bad input, 3 some items failed, 4 the batch failed, 130
interrupted. JSON goes to stdout with `--json`; progress, tables and errors go to stderr.
"""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from pydantic import ValidationError

from batchord.chains.errors import BatchordError
from batchord.commands import batches, control, flower, maintenance, one_machine, run, serve


class _Refusal(click.ClickException):
    exit_code = 2


class _Program(click.Group):
    """Turns our errors into one line that names the cure, and exit code 2."""

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
    except BatchordError as error:
        raise _refusal(str(error)) from error
    except ValidationError as error:
        raise _refusal(_settings_problem(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted", err=True)
        sys.exit(130)


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batchord")
def program() -> None:
    """Run one LLM chain over many inputs as a durable Celery batch."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)


for room in (run, one_machine, serve, batches, flower, control, maintenance):
    for command in room.COMMANDS:
        program.add_command(command)


def main() -> None:
    """Run the command line (the console script)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C, so that nothing is left running and no folder behind; nohup stays nohup.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    program(prog_name="batchord")


def _refusal(message: str) -> click.ClickException:
    return _Refusal(" ".join(message.split()))


def _settings_problem(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)
    return "; ".join(
        f"BATCHORD_{'_'.join(str(part) for part in each['loc']).upper()}: {each['msg']}"
        for each in found
    )
