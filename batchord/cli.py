"""The command line.

Exit codes: 0 all good, 2 wrong usage or bad input, 3 some items failed, 4 the batch failed.
JSON goes to stdout with `--json`; progress, tables and errors go to stderr.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from batchord import batches, onemachine
from chains.errors import BatchordError

F = TypeVar("F", bound=Callable[..., Any])


class _Refusal(click.ClickException):
    exit_code = 2


class _Program(click.Group):
    """Turns our errors into one line that names the cure, and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BatchordError as error:
            raise _refusal(str(error)) from error
        except ValidationError as error:
            raise _refusal(_settings_problem(error)) from error


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batchord")
def program() -> None:
    """Run one LLM chain over many inputs as a durable Celery batch."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)


for command in (*onemachine.COMMANDS, *batches.COMMANDS):
    program.add_command(command)


def main() -> None:
    """The console script."""
    program(prog_name="batchord")


def _refusal(message: str) -> click.ClickException:
    return _Refusal(" ".join(message.split()))


def _settings_problem(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)
    return "; ".join(
        f"BATCHORD_{'_'.join(str(part) for part in each['loc']).upper()}: {each['msg']}"
        for each in found
    )
