"""The Lua scripts of the ledger, by name, and the signature at the head of each.

A signature is the one declaration of what a script takes:

    -- gather(KEYS meta, shards, settled; ARGV shard, events_kept, (index, token)...) -> answer

`[name]` may be left out; `name...` and `(name, name)...` may come any number of times. The loader
puts locals of these names in front of the script: META for a key, `shard` for an argument, NAME_AT
for the place of the first repeated key or argument, and `records()`, which iterates over repeated
groups of arguments. `Script.call` puts keys and arguments into the same order by the same names, so
that a list in Python and a position in Lua cannot drift apart. `make lint` compares all
calls with the signatures (`tests/support/lua_lint.py`).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import chain
from typing import Any, Final, NamedTuple

Argument = str | int | float | bytes

#: In front of every script.
PRELUDE: Final = "prelude"
#: In the comment at the head of a script: the files whose functions it calls.
_USES: Final = re.compile(r"^-- uses: (.+)$", re.MULTILINE)
_SIGNATURE: Final = re.compile(
    r"(?P<name>\w+)\((?:KEYS (?P<keys>[^;]+?))?(?:; )?(?:ARGV (?P<args>.+?))?\) -> "
)
#: A function of a library, from the first column on.
_FUNCTION: Final = re.compile(r"local function (\w+)\(.*?\nend\n", re.DOTALL)
_PARAMETER: Final = re.compile(r"(\w+)|\[(\w+)\]|(\w+)\.\.\.|\((\w+(?:, \w+)*)\)\.\.\.")


class BadSignature(ValueError):
    """A script's first line, or a call that does not fit it."""


class Call(NamedTuple):
    """One run of a script."""

    name: str
    keys: Sequence[str]
    args: Sequence[Argument]


class Parameters(NamedTuple):
    """The keys, or the arguments, of a script: names in order."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    #: The names of one repeated group; one name if single values repeat.
    repeated: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> "Parameters":
        """Read one list of a signature."""
        names: dict[str, list[str]] = {"required": [], "optional": [], "repeated": []}
        for part in re.split(r", (?![^(]*\))", text) if text else ():
            if not (found := _PARAMETER.fullmatch(part)):
                raise BadSignature(f"not a parameter: {part!r}")
            required, optional, single, group = found.groups()
            if names["repeated"] or (required and names["optional"]):
                raise BadSignature(f"{part!r} stands behind what may be left out")
            kind = "required" if required else "optional" if optional else "repeated"
            names[kind] += (required or optional or single or group).split(", ")
        return cls(**{kind: tuple(found) for kind, found in names.items()})

    @property
    def names(self) -> tuple[str, ...]:
        """The names of single values."""
        return self.required + self.optional

    def locals(self, table: str, name: Callable[[str], str]) -> str:
        """Return the Lua statements that bind these names to the elements of `table`."""
        after, size = len(self.names) + 1, len(self.repeated)
        bound = ", ".join(map(name, self.names))
        values = ", ".join(f"{table}[{i}]" for i in range(1, after))
        lines = [f"local {bound} = {values}"] if bound else []
        if size > 1:
            lines.append(f"local RECORDS_AT, records = {after}, each({after}, {size})")
        elif size:
            lines.append(f"local {self.repeated[0].upper()}_AT = {after}")
        return " ".join(lines)


class Script:
    """One script: what it is called with, and its text."""

    def __init__(self, name: str, own_text: str) -> None:
        self.name = name
        self._own_text = own_text
        found = _SIGNATURE.match(_head(own_text))
        if found is None or found["name"] != name:
            raise BadSignature(f"{name}.lua does not begin with its signature")
        self.keys = Parameters.parse(found["keys"])
        self.args = Parameters.parse(found["args"])

    @cached_property
    def text(self) -> str:
        """The script as the server gets it: behind the functions that it uses, its names bound."""
        names = f"{self.keys.locals('KEYS', str.upper)} {self.args.locals('ARGV', str)}\n"
        text = names + self._own_text
        for library in (*reversed(uses(self._own_text)), PRELUDE):
            text = _behind(script_source(library), text)
        return text

    def call(
        self,
        key: Callable[[str], str | None],
        args: Mapping[str, Argument],
        *,
        more_keys: Iterable[str] = (),
        records: Iterable[Any] = (),
    ) -> Call:
        """Return a call with each value in its place.

        `key`: gives the key of a name, None for one that is left out. `records`: the repeated
        arguments, as tuples of one group each, or as single values.

        Raises:
            BadSignature: an argument is missing, or the script has none of its name.
        """
        if unknown := args.keys() - set(self.args.names):
            raise BadSignature(f"{self.name}.lua has no argument {', '.join(sorted(unknown))}")
        keys, values = self._in_order(self.keys, key), self._in_order(self.args, args.get)
        size = len(self.args.repeated)
        flat = list(chain.from_iterable(records)) if size > 1 else list(records)
        if len(flat) % size if size else flat:
            raise BadSignature(f"{self.name}.lua takes its repeated arguments {size} at a time")
        return Call(self.name, [*keys, *more_keys], [*values, *flat])

    def _in_order(self, names: Parameters, find: Callable[[str], Any]) -> list[Any]:
        values = [find(name) for name in names.names]
        while len(values) > len(names.required) and values[-1] is None:
            values.pop()
        if None in values:
            missing = names.names[values.index(None)]
            raise BadSignature(f"{self.name}.lua needs {missing}")
        return values


@cache
def script_files() -> dict[str, Traversable]:
    """Return all files by name: `ledger/lua/FOLDER/NAME.lua`."""
    folders = (files("batchord.ledger") / "lua").iterdir()
    return {
        each.name.removesuffix(".lua"): each
        for folder in folders
        if folder.is_dir()
        for each in folder.iterdir()
        if each.name.endswith(".lua")
    }


@cache
def script(name: str) -> Script:
    """Return a script by name."""
    return Script(name, script_source(name))


def script_source(name: str) -> str:
    """Return the text of one file."""
    return script_files()[name].read_text()


def is_library(text: str) -> bool:
    """Return whether a file is joined in front of scripts: it begins with `-- NAME: `."""
    return re.match(r"-- \w+: ", text) is not None


def uses(text: str) -> list[str]:
    """Return the files that the `-- uses: NAME ...` lines name, each behind those that it uses."""
    named = [each for line in _USES.findall(text) for each in line.split()]
    return list(dict.fromkeys(x for each in named for x in (*uses(script_source(each)), each)))


def _behind(library: str, text: str) -> str:
    """Return a script behind the functions of a library that it uses: each costs time in a run."""
    kept, end = text, len(library)
    for found in reversed([*_FUNCTION.finditer(library)]):
        between, end = library[found.end() : end], found.start()
        used = re.search(rf"\b{found[1]}\b", kept) is not None
        kept = (found[0] if used else "") + between + kept
    return library[:end] + kept


def _head(text: str) -> str:
    """Return the comment at the head of a script as one line."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return " ".join(lines)
