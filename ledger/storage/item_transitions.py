"""Forms of one item on its way: asked for, claimed, kept, deferred and settled."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from batchord.chains.usage import Usage
from batchord.ledger.core.compression import split_head, unpack, unpack_outcome
from batchord.ledger.errors import LedgerRefused
from batchord.ledger.models import ItemStatus

Verdict = Literal[
    "run", "lost", "settled", "held", "stopped", "unknown", "suspect", "same", "unreadable"
]


@dataclass(slots=True, kw_only=True)  # a frozen dataclass takes three times as long to make
class ClaimRequest:
    """A request to run an item: `token` names the execution."""

    batch_id: str
    index: int
    token: str
    #: Nothing else runs in its process: it may have its last start.
    alone: bool = False
    #: The provider's answer to it is there: it is claimed also if the batch takes no new starts.
    answered: bool = False


class Claim(NamedTuple):
    """The ledger's answer to a claim request.

    `verdict` is `run` (it is yours), `lost` (it is yours, to be settled as `worker_lost`),
    `settled`, `held` (another execution's lease is alive), `stopped` (the batch takes no new
    starts), `suspect` (held for you and not started, as it has cost processes: claim again, alone),
    `same` (it is yours, to be settled as item `first` was, which has the same input), `unknown`
    (no such batch or item) or `unreadable` (what is recorded of the batch is damaged: `error`; if
    it was claimed all the same, its lease runs out).
    """

    verdict: Verdict
    attempt: int = 0
    input: str = ""
    chain: str = ""
    #: What steps of earlier attempts have given, and what these have used
    #: (`batchord.chains.runtime.checkpoints`).
    steps: str = ""
    usage: str = ""
    #: Whether an output of the same chain, settings and input may stand in, of whatever batch.
    cache: bool = False
    #: The outcome of the item with the same input, as JSON, and that item; the latter also where
    #: this one is `held`, as it waits for that outcome.
    outcome: str = ""
    first: int | None = None
    error: LedgerRefused | None = None
    #: The request, if the item may run; and the item's custom_id, if its batch has custom_ids.
    claim_request: ClaimRequest | None = None
    custom_id: str | None = None
    #: The config of the caller as JSON, or nothing; and where `input` has objects of LangChain's.
    config: str = ""
    types: Mapping[str, str] = MappingProxyType({})

    @property
    def used(self) -> Usage | None:
        """The usage of earlier attempts, if it is known."""
        return Usage.model_validate_json(self.usage) if self.usage else None


@dataclass(slots=True, kw_only=True)
class Checkpoint:
    """A running item's new step outputs since the last checkpoint, and all its usage so far."""

    claim_request: ClaimRequest
    #: As `batchord.chains.runtime.checkpoints` has it; may be empty.
    steps: str
    usage: Usage | None


class Deferral(NamedTuple):
    """An item whose attempt ended without an outcome; the next may start in `seconds`."""

    claim_request: ClaimRequest
    seconds: float
    #: Whether it counts as an attempt; not if its provider was down.
    counts: bool = True


@dataclass(slots=True, kw_only=True)
class Settlement:
    """How an execution's attempt ended; `outcome` is a JSON object without `output`."""

    batch_id: str
    index: int
    token: str
    shard: int
    #: The claim's.
    attempt: int
    status: ItemStatus
    outcome: str
    #: The error's, if it failed.
    code: str = ""
    #: JSON text.
    output: str = "null"
    usage: Mapping[str, int] = field(default_factory=dict)
    #: Seconds that the chain ran.
    busy: float = 0.0


class SettleResult(NamedTuple):
    """The answer to a settlement: refused if another execution holds or has settled the item."""

    recorded: bool
    #: Each item of its shard has an outcome now: the gather is due.
    shard_complete: bool
    #: The batch's window has room for another shard since this settlement.
    room: bool = False
    #: Items of the batch that have waited for it may start.
    let_go: bool = False
    #: The script has failed, as the batch's record is damaged: how much it did is unknown.
    error: LedgerRefused | None = None


def read_claim(
    claim_request: ClaimRequest, chain: str, config: str, answer: Sequence[str], *, cache: bool
) -> Claim:
    match answer:
        case ["run", attempt, text, custom_id, *kept]:
            head, text = _split(_read(unpack, text))
            steps, usage = kept or ("", "")
            return Claim(
                verdict="run",
                attempt=int(attempt),
                input=text,
                chain=chain,
                steps=steps,
                usage=usage,
                cache=cache,
                claim_request=claim_request,
                custom_id=custom_id or None,
                config=head.get("config", config),
                types=head.get("types", {}),
            )
        case ["same", attempt, outcome, first]:
            text = _read(unpack_outcome, outcome)
            return Claim("same", int(attempt), chain=chain, outcome=text, first=int(first))
        case ["held", _, first]:
            return Claim("held", first=int(first))
        case ["lost", attempt]:
            return Claim(verdict="lost", attempt=int(attempt), chain=chain)
    verdict: Verdict = answer[0]  # type: ignore[assignment]
    return Claim(verdict=verdict)


def _split(text: str) -> tuple[dict[str, Any], str]:
    """Split a stored input into its head and its JSON text; empty if the head is damaged."""
    try:
        return split_head(text)
    except ValueError:
        return {}, ""


def _read(read: Callable[[str], str], stored: str) -> str:
    """Decompress a stored JSON text; empty, and so not JSON, if it is damaged."""
    try:
        return read(stored)
    except (zlib.error, ValueError):
        return ""
