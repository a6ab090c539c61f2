"""Modules of chains by name or by path, as settings and command lines name them."""

import importlib.util
import os
import sys
from pathlib import Path

from batchord.chains.errors import BatchordError
from batchord.ledger.core.working_directory import add_folder


class NoChainModule(BatchordError):
    """An entry of --chains leads to no module, or to another one; the message names the cure."""


def module_name(entry: str) -> str:
    """Return the name to import a module of chains by; `entry` is that name, or a path to its file.

    The folder of a path is put on `sys.path`, so that the module finds its neighbours, as a script
    does.

    Raises:
        NoChainModule: there is no such file, or an import of its name would find another module.
    """
    if os.sep not in entry and not entry.endswith(".py"):
        return entry
    path = Path(entry).expanduser().resolve()
    name = path.stem
    if not path.exists():
        raise NoChainModule(f"--chains: there is no file {entry!r}")
    if not name.isidentifier():
        raise NoChainModule(
            f"--chains: {path.name!r} cannot be imported: rename it to letters, digits and _, with "
            ".py at the end"
        )
    add_folder(str(path.parent))
    found = _origin(name)
    if found is None or Path(found).resolve() not in (path, path / "__init__.py"):
        raise NoChainModule(
            f"--chains: {path.name!r} has the name of another module ({found or 'built in'}): "
            "rename it"
        )
    return name


def _origin(name: str) -> str | None:
    """Return the file that an import of this name finds, or has found."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None)
    found = importlib.util.find_spec(name)
    return None if found is None else found.origin
