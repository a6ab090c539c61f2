"""Find a user's modules in the working directory, so that none shadows a library or Batchord."""

import os
import sys
from pathlib import Path


def add_working_directory() -> None:
    """Put the working directory on `sys.path`: behind the libraries, before a checkout of Batchord.

    A checkout has folders named `chains`, `ledger`, `producer` and `worker`. An editable install
    puts the checkout on `sys.path`, where these folders must not hide modules of a user's project.
    """
    add_folder(os.getcwd())


def add_folder(folder: str) -> None:
    """Put a folder of the user's on `sys.path`, as `add_working_directory` does."""
    if folder in sys.path:
        return
    checkout = Path(__file__).parents[3]
    if (checkout / "pyproject.toml").exists() and str(checkout) in sys.path:
        sys.path.insert(sys.path.index(str(checkout)), folder)
    else:
        sys.path.append(folder)
