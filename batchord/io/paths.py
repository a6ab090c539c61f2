"""Check the paths and URLs that commands write to."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from batchord.chains.tables.extra import BadTable
from batchord.io.input_file import InputFile
from batchord.producer.tables.remote_file import (
    Destination,
    NotWritten,
    RemoteFile,
    destination,
)

F = TypeVar("F", bound=Callable[..., Any])


class Output(click.ParamType[Destination]):
    """A file to write: a path or a URL. What could not be written is refused before any work."""

    name = "FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Destination:
        """Return the file, which is not opened yet."""
        if isinstance(value, (Path, RemoteFile)):
            return value
        if value == "-":
            self.fail(
                "results go into a file, whole or not at all: name one, as results.jsonl "
                "(`batchord results ID` without -o writes to stdout)",
                param,
                ctx,
            )
        try:
            path = destination(value)
            if isinstance(path, RemoteFile):
                path.check()
                return path
        except (BadTable, NotWritten) as error:
            self.fail(str(error), param, ctx)
        if why := _unwritable(path):
            self.fail(why, param, ctx)
        return path


def _unwritable(path: Path) -> str | None:
    """Return why this path cannot be written; None if it can."""
    if path.is_dir():
        return f"{str(path)!r} is a folder: name a file in it, as results.jsonl"
    if not path.parent.is_dir():
        return f"there is no folder {str(path.parent)!r}: make it first"
    if not os.access(path.parent, os.W_OK) or (path.exists() and not path.is_file()):
        return f"{str(path)!r} cannot be replaced: name another file"
    return None


def output_option(*, help_: str, required: bool = False) -> Callable[[F], F]:
    """Return the option -o, a file that can be written; the command gets it as `path`."""
    return click.option("-o", "--output", "path", type=Output(), required=required, help=help_)


def refuse_overwriting(source: InputFile, *paths: Destination | None) -> None:
    """Refuse to write results over the file of inputs, also by another name of it.

    Raises:
        click.UsageError: one of the paths leads to that file.
    """
    for path in paths:
        if path is not None and source.is_at(path):
            raise click.UsageError(
                f"{str(path)!r} is the file of the inputs: its results would replace them; name "
                "another file to write"
            )
