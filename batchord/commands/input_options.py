"""The options that name a file of inputs."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click

from batchord.io.input_file import InputFile
from batchord.io.interruptible import interruptible
from batchord.producer.tables.file_kinds import TableFormat, is_url

F = TypeVar("F", bound=Callable[..., Any])


class Inputs(click.ParamType[InputFile]):
    """A file of inputs, a URL, or stdin; while stdin says nothing, a signal is still heard."""

    name = "FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> InputFile:
        """Return the file, which is opened as it is read."""
        file = value if isinstance(value, InputFile) else self._file(value, param, ctx)
        if ctx is not None:
            ctx.call_on_close(file.close)
        return file

    def _file(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> InputFile:
        if value == "-":
            descriptor = _descriptor(sys.stdin)
            return InputFile(
                "-", sys.stdin.buffer if descriptor is None else interruptible(descriptor)
            )
        if not is_url(value):
            return self._path(value, param, ctx)
        return InputFile(value)

    def _path(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> InputFile:
        path = Path(value)
        try:
            if path.is_fifo() or path.is_char_device():
                return InputFile(value, interruptible(os.open(path, os.O_RDONLY)))
            path.open("rb").close()
        except OSError as error:
            self.fail(f"{value!r}: {error.strerror}", param, ctx)
        return InputFile(value)


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None


def input_option(command: F) -> F:
    """Add the file of inputs and how it is read; the command gets it as `source`."""

    @wraps(command)
    def with_source(
        *args: Any,
        source: InputFile,
        input_format: TableFormat | None,
        id_column: str | None,
        **given: Any,
    ) -> Any:
        if input_format is not None:
            source.format = input_format
        source.id_column = id_column
        return command(*args, source=source, **given)

    command_with_options: Any = with_source
    for option in (
        click.option(
            "--id",
            "id_column",
            metavar="COLUMN",
            help="Name each row by its cell in this column: it is the custom_id.",
        ),
        click.option(
            "--input-format",
            type=click.Choice(get_args(TableFormat)),
            help="What the input is, if its name does not say so.",
        ),
        click.option(
            "-i",
            "--input",
            "source",
            type=Inputs(),
            required=True,
            help="Inputs: .csv, .tsv, .json (an array), .jsonl, .txt (a line is an input), "
            ".parquet or .arrow, each also as .gz or .zst, or such a URL; - is stdin. Without a "
            "suffix, JSON lines. An object of `input` and `custom_id` is taken apart.",
        ),
    ):
        command_with_options = option(command_with_options)
    return cast(F, command_with_options)
