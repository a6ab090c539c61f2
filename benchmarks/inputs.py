"""Inputs of every competitor, and their answers: the same for all, checked one by one.

Only the standard library is imported here: competitors run in an environment of their own.
"""

import zlib
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, Final

#: The model that `benchmarks.llm_server` is asked for tells it how long to take.
MODELS: Final = {"llm": "fixed-200ms", "llm-tail": "tail-200ms"}

#: The vectors that the provider has, which are exact as 32-bit floats; a text's hash picks one.
VECTORS: Final = [[(n * k % 251) / 256 for k in range(1, 9)] for n in range(1, 257)]

_MISSING: Final = object()


class WrongOutcome(AssertionError):
    """A competitor gave back something else than what it was given: nothing it took counts."""


def inputs(kind: str, items: int) -> Iterator[Any]:
    """Yield the inputs of a kind: numbers, prompts, or texts of 100 bytes."""
    if kind == "noop":
        yield from range(items)
    elif kind in MODELS:
        for index in range(items):
            yield f"Describe item {index:07d} in one sentence, please."
    elif kind == "embed":
        for index in range(items):
            yield f"item {index:07d}: the site is down"
    elif kind == "text":
        for index in range(items):
            yield f"item {index:07d} ".ljust(98, "x")
    else:
        raise ValueError(f"no such kind of inputs: {kind}")


def expected(kind: str, items: int) -> Iterator[Any]:
    """Yield the outputs that belong to `inputs`, in order."""
    for given in inputs(kind, items):
        if kind == "embed":
            yield vector_of(given)
            continue
        yield f"echo: {given}" if kind in MODELS else given


def vector_of(text: str) -> list[float]:
    """Return the vector of a text."""
    return VECTORS[zlib.crc32(text.encode()) % len(VECTORS)]


def check(kind: str, items: int, outputs: Iterable[Any]) -> None:
    """Return if these are all the outputs, each in its place.

    Raises:
        WrongOutcome: one is missing, too much, wrong or in another's place.
    """
    pairs = zip_longest(outputs, expected(kind, items), fillvalue=_MISSING)
    for index, (output, wanted) in enumerate(pairs):
        if output != wanted:
            raise WrongOutcome(f"{kind} {index} of {items}: {output!r:.200} and not {wanted!r}")
