"""The libraries of the extra `batchord[tables]`, imported on first use."""

import importlib
from typing import Any

from batchord.chains.errors import BatchordError


class BadTable(BatchordError):
    """A table cannot be read or written as it is; the message says what to change."""


def library(name: str, what: str) -> Any:
    """Import and return a library of the extra `batchord[tables]`; `what` needs it.

    Raises:
        BadTable: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise BadTable(
            f'{what} needs the package {package}: pip install "batchord[tables]"'
        ) from None
