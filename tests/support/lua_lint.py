"""Check the Lua scripts of the ledger and each call of them, without running anything.

`make lint` runs it as `python -m tests.support.lua_lint`. A fault is one line, `FILE:LINE: what`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from batchord.ledger.core.scripts import (
    PRELUDE,
    BadSignature,
    Script,
    is_library,
    script_files,
    script_source,
    uses,
)

#: Folders whose Python calls scripts.
CALLERS: Final = ("batchord", "chains", "gateway", "ledger", "producer", "worker")

_TOKEN: Final = re.compile(
    r"(?P<space>\s+|--\[\[.*?\]\]|--[^\n]*)|(?P<name>[A-Za-z_]\w*)|(?P<number>0x[\da-fA-F]+|\d[\w.]*)"
    r"|(?P<text>'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\")|(?P<sign>\.\.\.|\.\.|[=~<>]=|.)",
    re.DOTALL,
)
_KEYWORDS: Final = frozenset(
    {"and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in"}
    | {"local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while"}
)
#: What Redis gives to a script, as far as ours use it.
_GLOBALS: Final = frozenset(
    {"KEYS", "ARGV", "redis", "cjson", "math", "string", "table", "ipairs", "pairs", "pcall"}
    | {"select", "tonumber", "tostring", "type", "unpack"}
)


class Token(NamedTuple):
    kind: str
    text: str
    line: int


def tokens(text: str) -> list[Token]:
    """Return the tokens of a Lua text, without space and comments."""
    found, line = [], 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind == "name" and match[0] in _KEYWORDS:
            kind = "keyword"
        if kind != "space":
            found.append(Token(kind, match[0], line))
        line += match[0].count("\n")
    return found


@dataclass
class Scope:
    """The locals of a block, by name: the line, and whether it was read."""

    names: dict[str, list[int]] = field(default_factory=dict)


class Names:
    """Follows the scopes of one file; `known`: what is declared in front of it."""

    def __init__(self, text: str, known: frozenset[str]) -> None:
        self._tokens = [*tokens(text), Token("end", "", 0)]
        self._at = 0
        self._known = known
        self._scopes = [Scope()]
        self._loops = 0
        #: "line: what", in the order in which they were found.
        self.faults: list[str] = []
        #: The locals of the file itself.
        self.top: dict[str, list[int]] = self._scopes[0].names
        #: All names that are read, of whatever scope.
        self.read: set[str] = set()

    def check(self, *, top_is_used: bool) -> None:
        """Look through the file; `top_is_used`: its own locals are for the files behind it."""
        while (token := self._next()).kind != "end":
            if token.kind == "name":
                self._name(token)
            elif token.kind == "keyword":
                self._keyword(token)
        if len(self._scopes) > 1:
            self.faults.append("0: a block has no end")
        if not top_is_used:
            self._unused(self._scopes[0])

    def _keyword(self, token: Token) -> None:
        """Open and close blocks, and declare what a statement declares."""
        match token.text:
            case "local":
                self._local()
            case "function":
                self._open(self._parameters())
            case "for":
                self._open(self._names())
                self._loops += 1
            case "do" if self._loops:
                self._loops -= 1  # the header of the loop has opened its block
            case "do" | "then" | "repeat":
                self._open([])
            case "elseif" | "end" | "until":
                self._close(token)
            case "else":
                self._close(token)
                self._open([])

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _peek(self) -> str:
        return self._tokens[self._at].text

    def _names(self) -> list[Token]:
        """Read `a, b, c`."""
        found = [self._next()]
        while self._peek() == ",":
            self._next()
            found.append(self._next())
        return found

    def _parameters(self) -> list[Token]:
        while self._next().text != "(":
            pass
        found = []
        while (token := self._next()).text != ")":
            if token.kind == "name":
                found.append(token)
        return found

    def _local(self) -> None:
        if self._peek() == "function":
            self._next()
            self._declare([self._next()])
            self._open(self._parameters())
        else:
            self._declare(self._names())

    def _declare(self, names: list[Token]) -> None:
        for each in names:
            self._scopes[-1].names[each.text] = [each.line, 0]

    def _open(self, names: list[Token]) -> None:
        self._scopes.append(Scope())
        self._declare(names)

    def _close(self, token: Token) -> None:
        if len(self._scopes) == 1:
            self.faults.append(f"{token.line}: no block to end here")
            return
        self._unused(self._scopes.pop())

    def _unused(self, scope: Scope) -> None:
        for name, (line, reads) in scope.names.items():
            if not reads and name != "_":
                self.faults.append(f"{line}: {name} is never used")

    def _name(self, token: Token) -> None:
        before = self._tokens[self._at - 2].text if self._at > 1 else ""
        if before in (".", ":"):
            return  # a field
        if self._peek() == "=" and before in ("{", ","):
            return  # a field of a table that is made; or an assignment to several
        if token.text in ("KEYS", "ARGV") and self._tokens[self._at + 1].kind == "number":
            self.faults.append(f"{token.line}: {token.text} by its position: name it")
        assigned = self._peek() == "="
        self.read.add(token.text)
        for scope in reversed(self._scopes):
            if token.text in scope.names:
                scope.names[token.text][1] += not assigned
                return
        if token.text not in self._known:
            self.faults.append(f"{token.line}: {token.text} is not declared")


def top_names(library: str) -> frozenset[str]:
    """Return what a library declares for the files behind it."""
    names = Names(script_source(library), _GLOBALS)
    names.check(top_is_used=True)
    return frozenset(names.top)


def faults_of_script(name: str, text: str) -> Iterator[str]:
    """Yield what is wrong with one file, as "line: what"."""
    libraries = [*uses(text), *([] if name == PRELUDE else [PRELUDE])]
    known = frozenset[str]().union(_GLOBALS, *map(top_names, libraries))
    if is_library(text):
        names = Names(text, known)
        names.check(top_is_used=True)
        yield from names.faults
        return
    try:
        script = Script(name, text)
    except BadSignature as error:
        yield f"1: {error}"
        return
    keys, args = script.keys, script.args
    repeated = {"records", "RECORDS_AT"} if len(args.repeated) > 1 else set[str]()
    if len(args.repeated) == 1:
        repeated = {f"{args.repeated[0].upper()}_AT"}
    more_keys = {f"{each.upper()}_AT" for each in keys.repeated}
    single = {*map(str.upper, keys.names), *args.names}
    names = Names(text, known | single | repeated | more_keys)
    names.check(top_is_used=False)
    yield from names.faults
    for each in sorted(single - names.read):
        yield f"1: {each} of the signature is never used"
    for group in (repeated, more_keys):
        if group and not group & names.read:
            yield f"1: {' or '.join(sorted(group))} of the signature is never used"
    for library in set(uses(text)) - {used for each in uses(text) for used in _behind(each)}:
        if not top_names(library) & names.read:
            yield f"1: nothing of {library} is used"


def _behind(library: str) -> list[str]:
    return uses(script_source(library))


def faults_of_call(call: ast.Call) -> Iterator[str]:
    """Yield what is wrong with a call of `transition` or `call`, if it names a script."""
    how = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    if how not in ("transition", "call") or not isinstance(name, str):
        return
    files = script_files()
    if name not in files or is_library(script_source(name)):
        yield f"there is no script {name!r}"
        return
    script = Script(name, script_source(name))
    given = {each.arg for each in call.keywords}
    args = given - {"page", "keys", "more_keys", "records", None}
    for each in sorted(str(arg) for arg in args - set(script.args.names)):
        yield f"{name}.lua has no argument {each}"
    known = {"batch_id", "events_kept", "page_size", "lease_ms"}
    missing = set(script.args.required) - args - known
    if None not in given and missing:
        yield f"{name}.lua needs {', '.join(sorted(missing))}"
    for what, repeated in (("records", script.args.repeated), ("more_keys", script.keys.repeated)):
        if (what in given) != bool(repeated) and None not in given:
            yield f"{name}.lua {'needs' if repeated else 'takes no'} {what}"


def faults(root: Path) -> Iterator[str]:
    """Yield all faults, as "file:line: what"."""
    for name, file in sorted(script_files().items()):
        for fault in faults_of_script(name, file.read_text()):
            yield f"{file}:{fault}"
    for folder in CALLERS:
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    for fault in faults_of_call(node):
                        yield f"{path}:{node.lineno}: {fault}"


def main() -> int:
    """Print all faults; return the exit code."""
    found = list(faults(Path(__file__).parents[2]))
    for fault in found:
        sys.stderr.write(f"{fault}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
