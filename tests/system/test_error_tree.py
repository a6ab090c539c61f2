"""The tree of errors in docs/chains.md is the tree of the public classes."""

import re
from pathlib import Path

import batchord
from batchord import BatchordError

PAGE = (Path(__file__).parents[2] / "docs" / "chains.md").read_text()
#: A line of the drawing: how deep it is, and the name.
LINE = re.compile(r"^((?:│   |    )*)[├└]── (\w+)", re.MULTILINE)


def drawn() -> dict[str, str]:
    """The parent of each class in the drawing."""
    parents, above = {}, ["BatchordError"]
    for indent, name in LINE.findall(PAGE):
        depth = len(indent) // 4 + 1
        parents[name] = above[depth - 1]
        above = [*above[:depth], name]
    return parents


def real() -> dict[str, str]:
    """The nearest public base of each public error."""
    public = [getattr(batchord, name) for name in batchord.__all__]
    errors = {each for each in public if isinstance(each, type) and issubclass(each, BatchordError)}
    return {
        error.__name__: next(base for base in error.__mro__[1:] if base in errors).__name__
        for error in errors - {BatchordError}
    }


def test_the_drawing_is_the_tree() -> None:
    assert drawn() == real()
