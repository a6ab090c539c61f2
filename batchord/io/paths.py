"""Check the paths that commands are given."""

import os
from pathlib import Path

import click


def writable(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refuse now what could not be written after hours of work."""
    if path is None:
        return None
    if not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(path.parent)!r}: make it first")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not path.is_file()):
        raise click.BadParameter(f"{str(path)!r} cannot be replaced: name another file")
    return path
