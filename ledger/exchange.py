"""What a worker tells the ledger about its items, and asks of it: claim -> beat* -> settle.

One call carries the settlements and the claims of everything that a process runs, in one round
trip; each is still one transition of one item, with its own token.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from chains.usage import Usage
from ledger.connection import Call
from ledger.models import ItemStatus, PauseReason
from ledger.packing import pack_outcome, unpack, unpack_outcome
from ledger.schema import EVENTS_KEPT, PAGE_SIZE, page_of
from ledger.store import Store

#: Sums of a thousand of these fit into the server's counters.
_LARGEST: Final = 2**53

Verdict = Literal["run", "lost", "settled", "held", "stopped", "unknown", "suspect", "same"]


@dataclass(slots=True, kw_only=True)  # frozen ones take thrice as long to make
class Wish:
    """An item that someone wants to run: `token` names that execution."""

    batch_id: str
    index: int
    token: str
    #: Nothing else runs in its process: it may have its last start.
    alone: bool = False
    #: The provider's answer to it is there: it is claimed also if the batch takes no new starts.
    answered: bool = False


class Claim(NamedTuple):
    """What became of a wish.

    `verdict` is `run` (it is yours), `lost` (it is yours, to be settled as `worker_lost`),
    `settled`, `held` (another execution's lease is alive), `stopped` (the batch takes no new
    starts), `suspect` (held for you and not started, as it has cost processes: wish again, alone),
    `same` (it is yours, to be settled as item `first` was, which has the same input) or `unknown`
    (no such batch or item).
    """

    verdict: Verdict
    attempt: int = 0
    input: str = ""
    chain: str = ""
    #: What steps of earlier attempts have given, as `chains.kept` has it, and what these have used.
    steps: str = ""
    usage: str = ""
    #: Whether an output of the same chain, settings and input may stand in, of whatever batch.
    cache: bool = False
    #: The outcome of the item with the same input, as JSON, and that item; the latter also where
    #: this one is `held`, as it waits for that outcome.
    outcome: str = ""
    first: int | None = None

    @property
    def used(self) -> Usage | None:
        """What earlier attempts have used, where that is known."""
        return Usage.model_validate_json(self.usage) if self.usage else None


@dataclass(slots=True, kw_only=True)
class Keeping:
    """What a running item's steps have given since the last word of it, and all it has used."""

    wish: Wish
    #: As `chains.kept` has it; may be empty.
    steps: str
    usage: Usage | None


class PutOff(NamedTuple):
    """An item whose attempt ended without an outcome; the next may start in `seconds`."""

    wish: Wish
    seconds: float


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


class Receipt(NamedTuple):
    """What became of a settlement: refused if another execution holds or has settled the item."""

    recorded: bool
    #: Each item of its shard has an outcome now: the gather is due.
    shard_complete: bool
    #: The batch's window has room for another shard since this settlement.
    room: bool = False
    #: Items of the batch that have waited for it may start.
    let_go: bool = False


class Exchange:
    """Claims, renews, settles and releases items; it borrows the store's connection."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = store.keys
        self._lease_ms = int(store.settings.lease * 1000)

    def swap(
        self,
        settlements: Sequence[Settlement],
        wishes: Sequence[Wish],
        keepings: Sequence[Keeping] = (),
    ) -> tuple[list[Receipt], list[Claim]]:
        """Record what ended and claim what is next; the answers are in the order of the asked.

        Repeating a call whose answer was lost is harmless: tokens tell.
        """
        settling, claiming = _by_page(settlements), _by_page(wishes)
        # Kept first: an item that is settled keeps nothing more.
        calls = self._keep(keepings)
        kept = len(calls)
        calls += [self._settle(page, [settlements[i] for i in at]) for page, at in settling.items()]
        calls += [self._claim(page, [wishes[i] for i in at]) for page, at in claiming.items()]
        answers = self._store.run_all(calls)[kept:]
        receipts: dict[int, Receipt] = {}
        for places, answer in zip(settling.values(), answers, strict=False):
            *recorded, room, let_go = answer
            for place, n in zip(places, recorded, strict=True):
                receipts[place] = Receipt(n > 0, n == 2, bool(room), bool(let_go))
        claims: dict[int, Claim] = {}
        for places, answer in zip(claiming.values(), answers[len(settling) :], strict=False):
            chain, cache, *verdicts = answer
            made = (_claimed(chain, one, cache=bool(cache)) for one in verdicts)
            claims.update(zip(places, made, strict=True))
        return (
            [receipts[i] for i in range(len(settlements))],
            [claims[i] for i in range(len(wishes))],
        )

    def beat(self, batch_id: str, held: Mapping[int, str]) -> list[int]:
        """Renew the leases of the items held (index -> token); return those no longer ours."""
        keys = self._keys.batch(batch_id)
        flat = [part for pair in held.items() for part in pair]
        lost = self._store.run("beat", [keys.runs, keys.leases], self._lease_ms, *flat)
        return [int(index) for index in lost]

    def release(self, wishes: Iterable[Wish]) -> int:
        """Hand items back as if they had not been claimed; return how many were still held."""
        by_batch: dict[str, list[str | int]] = defaultdict(list)
        for wish in wishes:
            by_batch[wish.batch_id] += (wish.index, wish.token)
        released = 0
        for batch_id, args in by_batch.items():
            keys = self._keys.batch(batch_id)
            released += int(self._store.run("release", [keys.runs, keys.leases], *args))
        return released

    def keep(self, keepings: Sequence[Keeping]) -> None:
        """Keep what steps have given, for the item's next attempt."""
        self._store.run_all(self._keep(keepings))

    def put_off(self, items: Sequence[PutOff]) -> None:
        """Give the items' leases back and let none be claimed before its time."""
        calls = []
        by_batch: dict[str, list[str | int]] = defaultdict(list)
        for wish, seconds in items:
            by_batch[wish.batch_id] += (wish.index, wish.token, int(seconds * 1000))
        for batch_id, args in by_batch.items():
            keys = self._keys.batch(batch_id)
            calls.append(Call("put_off", [keys.runs, keys.leases, keys.kept, keys.due], args))
        self._store.run_all(calls)

    def pause(self, batch_id: str, reason: PauseReason) -> None:
        """Let no new item of the batch start until a person resumes it; the first reason stays."""
        keys = self._keys.batch(batch_id)
        text = reason.model_dump_json(exclude_none=True)
        self._store.run("pause", [keys.meta, keys.events], EVENTS_KEPT, text)

    def stopping(self, batch_ids: Sequence[str]) -> dict[str, ItemStatus]:
        """Return those of the batches whose running items shall stop, and what these become."""
        with self._store.talking(), self._store.redis.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids:
                pipe.hget(self._keys.batch(batch_id).meta, "ends_as")
            ends = pipe.execute()
        return {
            batch_id: ItemStatus(end)
            for batch_id, end in zip(batch_ids, ends, strict=True)
            if end is not None
        }

    def _claim(self, page: tuple[str, int], wishes: Iterable[Wish]) -> Call:
        batch_id, number = page
        keys = self._keys.batch(batch_id)
        names = [
            keys.meta,
            keys.inputs(number),
            keys.outcomes(number),
            keys.runs,
            keys.leases,
            keys.kept,
            keys.due,
            keys.firsts,
        ]
        args: list[str | int] = [self._lease_ms, self._store.settings.max_attempts, PAGE_SIZE]
        for wish in wishes:
            args += (wish.index, wish.token, int(wish.alone) + 2 * int(wish.answered))
        return Call("claim", names, args)

    def _settle(self, page: tuple[str, int], settlements: Iterable[Settlement]) -> Call:
        batch_id, number = page
        keys = self._keys.batch(batch_id)
        names = [
            keys.meta,
            keys.outcomes(number),
            keys.runs,
            keys.leases,
            keys.shards,
            keys.settled,
            keys.done,
            keys.events,
            keys.kept,
            keys.stats,
            keys.firsts,
            keys.due,
        ]
        args: list[str | int | bytes] = [EVENTS_KEPT, self._store.settings.alike_limit]
        for one in settlements:
            args += (one.index, one.token, one.shard, one.attempt, one.status, one.code)
            args += (pack_outcome(one.outcome, one.output), int(one.busy * 1e6), len(one.usage))
            args += _usage_args(one.usage)
        return Call("settle", names, args)

    def _keep(self, keepings: Sequence[Keeping]) -> list[Call]:
        by_batch: dict[str, list[str | int]] = defaultdict(list)
        for one in keepings:
            args = by_batch[one.wish.batch_id]
            usage = {} if one.usage is None else one.usage.counts()
            counts = {name: n for name, n in usage.items() if abs(n) <= _LARGEST}
            args += (one.wish.index, one.wish.token, one.steps, json.dumps(counts))
        calls = []
        for batch_id, args in by_batch.items():
            keys = self._keys.batch(batch_id)
            calls.append(Call("keep", [keys.meta, keys.runs, keys.kept], args))
        return calls


def _usage_args(usage: Mapping[str, int]) -> list[str | int]:
    # What does not fit is left out: a script that fails at a counter would leave half of its work.
    return [
        part
        for name, n in usage.items()
        for part in (f"usage.{name}", n if abs(n) <= _LARGEST else 0)
    ]


def _by_page(asked: Sequence[Wish | Settlement]) -> dict[tuple[str, int], list[int]]:
    """The places of what was asked, by batch and page: a call is about one page."""
    pages: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, one in enumerate(asked):
        pages[one.batch_id, page_of(one.index)].append(place)
    return pages


def _claimed(chain: str, answer: Sequence[str], *, cache: bool) -> Claim:
    match answer:
        case ["run", attempt, text]:
            return Claim("run", int(attempt), unpack(text), chain, cache=cache)
        case ["run", attempt, text, steps, usage]:
            return Claim("run", int(attempt), unpack(text), chain, steps, usage, cache)
        case ["same", attempt, outcome, first]:
            text = unpack_outcome(outcome)
            return Claim("same", int(attempt), chain=chain, outcome=text, first=int(first))
        case ["held", _, first]:
            return Claim("held", first=int(first))
        case ["lost", attempt]:
            return Claim(verdict="lost", attempt=int(attempt), chain=chain)
    verdict: Verdict = answer[0]  # type: ignore[assignment]
    return Claim(verdict=verdict)
