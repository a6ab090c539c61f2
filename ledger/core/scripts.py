"""Find the Lua scripts of the ledger by name, in the folders of `ledger/lua/`."""

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

#: In the comment at the head of a script: the files whose functions it calls.
_USES: Final = re.compile(r"^-- uses: (.+)$", re.MULTILINE)


@cache
def script_files() -> dict[str, Traversable]:
    """Return the files of all scripts by name: `ledger/lua/FOLDER/NAME.lua`."""
    folders = (files("batchord.ledger") / "lua").iterdir()
    return {
        each.name.removesuffix(".lua"): each
        for folder in folders
        if folder.is_dir()
        for each in folder.iterdir()
        if each.name.endswith(".lua")
    }


def script_text(name: str) -> str:
    """Return a script, behind the files that its `-- uses: NAME ...` lines name."""
    text = script_files()[name].read_text()
    used = [each for line in _USES.findall(text) for each in line.split()]
    return "".join([*map(script_text, used), text])
