"""Decide whose workers run a chain that `batchord run` was given: those that are up, or its own."""

import os
from enum import Enum
from typing import NamedTuple

from batchord.chains import registered
from batchord.ledger.storage.fleet import Fleet, ServedChain


class Whose(Enum):
    """Whose workers run the chain."""

    #: Those that are up.
    THEIRS = "theirs"
    #: Workers of its own, on the Redis that is there: no other worker takes from its queue.
    OURS_THERE = "ours, there"
    #: Workers of its own on a server of its own: the workers that are up would take its items.
    OURS_APART = "ours, apart"


class Choice(NamedTuple):
    """A decision, and what to tell about it; empty if it is as one would expect."""

    whose: Whose
    why: str = ""


def choose(fleet: Fleet, chain: str, *, local_model: bool) -> Choice:
    """Decide by the chains that the live workers have, and the chain as it is registered here."""
    if not fleet.workers:
        return Choice(Whose.OURS_THERE)
    here, serving = registered().get(chain), fleet.serving(chain)
    if here is None:
        return Choice(Whose.THEIRS if serving else Whose.OURS_THERE)
    if local_model:
        return _apart("have a model of their own")
    if not serving:
        return _apart(f"lack chain {chain!r}")
    if any(each.digest != ServedChain.of(here, os.environ).digest for each in serving):
        return _apart(f"have another version of chain {chain!r} (start them again to use them)")
    return Choice(Whose.THEIRS)


def _apart(why: str) -> Choice:
    said = f"The workers that are up {why}: this run has a server and workers of its own."
    return Choice(Whose.OURS_APART, said)
