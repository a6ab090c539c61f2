"""The libraries of the extra `batchord[tables]`, imported on first use."""

from typing import Any

from batchord.chains import extras
from batchord.chains.errors import BatchordError


class BadTable(BatchordError):
    """A table cannot be read or written as it is; the message says what to change."""


def library(name: str, what: str) -> Any:
    """Import and return a library of the extra `batchord[tables]`; `what` needs it.

    Raises:
        BadTable: it is not installed.
    """
    try:
        return extras.library(name, what)
    except extras.MissingExtra as error:
        raise BadTable(str(error)) from None
