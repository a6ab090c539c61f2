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
from typing import Any, Final

import click
from pydantic import ValidationError

from batchord.chains.errors import BatchordError
from batchord.commands import (
    batches,
    control,
    flower,
    maintenance,
    one_machine,
    results,
    run,
    serve,
    submit,
    workers,
)
from batchord.ledger.core.json_logs import log_json_to_stderr
from batchord.ledger.settings import Settings, misspelt


class _Refusal(click.ClickException):
    exit_code = 2


#: The commands in the order in which a newcomer needs them; others are listed last.
_GROUPS: Final = {
    "On this machine": ("run", "up"),
    "Batches": ("submit", "estimate", "list", "status", "watch", "results", "errors", "failures"),
    "A batch that runs, or has failed items": ("pause", "resume", "cancel", "retry"),
    "A deployment": ("worker", "workers", "flower", "serve", "chains", "doctor", "purge", "audit"),
}


class _Program(click.Group):
    """Turns our errors into one line that names the cure, and exit code 2."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups, each with its whole first sentence."""
        named = {name for names in _GROUPS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in named)
        for title, names in {**_GROUPS, "More": others}.items():
            found = [(name, self.commands[name]) for name in names if name in self.commands]
            if found:
                with formatter.section(title):
                    formatter.write_dl([(name, _sentence(each)) for name, each in found])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _one_line():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line():
            return super().invoke(ctx)


def _sentence(command: click.Command) -> str:
    """Return the first sentence of a command's help."""
    return command.get_short_help_str(limit=1_000)


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


@click.group(
    cls=_Program,
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
    if Settings().log_format == "json":
        log_json_to_stderr(logging.WARNING)
    else:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for line in misspelt(os.environ):
        click.echo(line, err=True)


for room in (
    run,
    one_machine,
    serve,
    submit,
    batches,
    results,
    flower,
    control,
    maintenance,
    workers,
):
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
