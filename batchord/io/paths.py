"""Check the paths that commands are given."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from batchord.io.input_file import InputFile

F = TypeVar("F", bound=Callable[..., Any])

#: A URL, as a path that was made of it: one slash is left of two.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def writable(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refuse now what could not be written after hours of work."""
    if path is None:
        return None
    if str(path) == "-":
        raise click.BadParameter(
            "results go into a file, whole or not at all: name one, as results.jsonl "
            "(`batchord results ID` without -o writes to stdout)"
        )
    if _URL.match(str(path)):
        raise click.BadParameter(
            f"results go into a file here, whole or not at all, and not to {str(path)!r}: name a "
            "file, and copy it there"
        )
    if not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(path.parent)!r}: make it first")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not path.is_file()):
        raise click.BadParameter(f"{str(path)!r} cannot be replaced: name another file")
    return path


def output_option(*, help_: str, required: bool = False) -> Callable[[F], F]:
    """Return the option -o, a file that can be written; the command gets it as `path`."""
    return click.option(
        "-o",
        "--output",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=writable,
        required=required,
        help=help_,
    )


def refuse_overwriting(source: InputFile, *paths: Path | None) -> None:
    """Refuse to write results over the file of inputs, also by another name of it.

    Raises:
        click.UsageError: one of the paths leads to that file.
    """
    inputs = source.status()
    if inputs is None:
        return
    for path in paths:
        if path is not None and path.exists() and os.path.samestat(inputs, path.stat()):
            raise click.UsageError(
                f"{str(path)!r} is the file of the inputs: its results would replace them; name "
                "another file to write"
            )
