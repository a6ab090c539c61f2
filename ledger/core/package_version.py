"""The version of Batchord that is installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def package_version() -> str:
    """Return the version of the installed package; "unknown" for a folder that is not installed."""
    try:
        return version("batchord")
    except PackageNotFoundError:
        return "unknown"
