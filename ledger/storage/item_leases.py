"""Transitions of items, under leases: claim -> beat* -> settle.

One call carries the settlements and the claims of everything that a process runs, in one round
trip; each is still one transition of one item, with its own token.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from batchord.ledger.core.compression import pack_outcome
from batchord.ledger.core.scripts import Call
from batchord.ledger.errors import LedgerRefused
from batchord.ledger.models import ItemStatus, PauseReason
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.item_transitions import (
    Checkpoint,
    Claim,
    ClaimRequest,
    Deferral,
    Settlement,
    SettleResult,
    read_claim,
)
from batchord.ledger.storage.keys import page_of

logger = logging.getLogger(__name__)

#: Sums of a thousand of these fit into the server's counters.
_LARGEST: Final = 2**53
_ENDS: Final = frozenset(status.value for status in ItemStatus if status.ended)

#: The batches of which a script has failed, and how; what was asked of the others is done.
Refused = dict[str, LedgerRefused]


class ItemLeases:
    """Claims, renews, settles and releases items; it borrows the store's connection."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._keys = store.keys

    def swap(
        self,
        settlements: Sequence[Settlement],
        claim_requests: Sequence[ClaimRequest],
        checkpoints: Sequence[Checkpoint] = (),
    ) -> tuple[list[SettleResult], list[Claim]]:
        """Record what ended and claim what is next; the answers are in the order of the asked.

        What is damaged of one batch costs the others nothing: its results and claims have an
        `error`. Repeating a call whose answer was lost is harmless: tokens tell.

        Raises:
            LedgerUnavailable: it is unknown what was recorded and claimed.
        """
        settling, claiming = _by_page(settlements), _by_page(claim_requests)
        # Kept first: an item that is settled keeps nothing more.
        checkpoint = self._keep(checkpoints)
        calls = list(checkpoint.values())
        calls += [self._settle(page, [settlements[i] for i in at]) for page, at in settling.items()]
        calls += [
            self._claim(page, [claim_requests[i] for i in at]) for page, at in claiming.items()
        ]
        answers = self._store.run_each(calls)
        _told_of(checkpoint, answers)
        answers = answers[len(checkpoint) :]
        receipts: dict[int, SettleResult] = {}
        for places, answer in zip(settling.values(), answers, strict=False):
            if isinstance(answer, LedgerRefused):
                receipts.update(dict.fromkeys(places, SettleResult(False, False, error=answer)))
                continue
            *recorded, room, let_go = answer
            for place, n in zip(places, recorded, strict=True):
                receipts[place] = SettleResult(n > 0, n == 2, bool(room), bool(let_go))
        claims: dict[int, Claim] = {}
        for places, answer in zip(claiming.values(), answers[len(settling) :], strict=False):
            if isinstance(answer, LedgerRefused):
                claims.update(dict.fromkeys(places, Claim("unreadable", error=answer)))
                continue
            chain, cache, config, *verdicts = answer
            for place, one in zip(places, verdicts, strict=True):
                claims[place] = read_claim(
                    claim_requests[place], chain, config, one, cache=bool(cache)
                )
        return (
            [receipts[i] for i in range(len(settlements))],
            [claims[i] for i in range(len(claim_requests))],
        )

    def beat(self, batch_id: str, held: Mapping[int, str]) -> list[int]:
        """Renew the leases of the items held (index -> token); return those no longer ours."""
        call = self._beat(batch_id, held)
        return [int(index) for index in self._store.run(call.name, call.keys, *call.args)]

    def beat_all(self, held: Mapping[str, Mapping[int, str]]) -> dict[str, list[int]]:
        """Renew leases of several batches in one round trip; return the lost items of each.

        The leases of a damaged batch run out.
        """
        calls = {batch_id: self._beat(batch_id, items) for batch_id, items in held.items()}
        answers, _ = self._run_each(calls)
        return {batch_id: [int(index) for index in lost] for batch_id, lost in answers.items()}

    def _beat(self, batch_id: str, held: Mapping[int, str]) -> Call:
        return self._store.call("beat", batch_id, records=held.items())

    def _run_each(self, calls: Mapping[str, Call]) -> tuple[dict[str, Any], Refused]:
        """Run a call for each of these batches, and return the answers of those that gave one."""
        if not calls:
            return {}, {}
        answers = self._store.run_each(list(calls.values()))
        refused = _told_of(calls, answers)
        heard = zip(calls, answers, strict=True)
        return {batch_id: each for batch_id, each in heard if batch_id not in refused}, refused

    def release(self, claim_requests: Iterable[ClaimRequest]) -> int:
        """Undo claims; return how many of the items were still held.

        A graceful shutdown must not consume an attempt. The leases of a damaged batch run out.
        """
        return self._by_batch("release", claim_requests)

    def abandon(self, claim_requests: Iterable[ClaimRequest]) -> int:
        """End the leases of items that this process cannot go on with; no attempt is consumed.

        The sweep publishes them again. Return how many were still held.
        """
        return self._by_batch("abandon", claim_requests)

    def keep(self, checkpoints: Sequence[Checkpoint]) -> Refused:
        """Record checkpoints for the items' next attempts."""
        return self._run_each(self._keep(checkpoints))[1]

    def put_off(self, items: Sequence[Deferral]) -> Refused:
        """Release the items' leases; each can be claimed again once it is due."""
        by_batch: dict[str, list[tuple[int, str, int, int]]] = defaultdict(list)
        for asked, seconds, counts in items:
            record = (asked.index, asked.token, int(seconds * 1000), int(counts))
            by_batch[asked.batch_id].append(record)
        return self._run_each(self._calls("put_off", by_batch))[1]

    def pause(self, batch_id: str, reason: PauseReason) -> None:
        """Let no new item of the batch start until a person resumes it; the first reason stays."""
        text = reason.model_dump_json(exclude_none=True)
        self._store.transition("pause", batch_id, reason=text)

    def stopping(self, batch_ids: Sequence[str]) -> dict[str, ItemStatus]:
        """Return those of the batches whose running items shall stop, and what these become.

        Not one that is damaged.
        """
        with self._store.redis.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids:
                pipe.hget(self._keys.batch(batch_id).meta, "ends_as")
            ends = self._store.replies(pipe)
        return {
            batch_id: ItemStatus(end)
            for batch_id, end in zip(batch_ids, ends, strict=True)
            if isinstance(end, str) and end in _ENDS
        }

    def _by_batch(self, script: str, claim_requests: Iterable[ClaimRequest]) -> int:
        by_batch: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for asked in claim_requests:
            by_batch[asked.batch_id].append((asked.index, asked.token))
        answers, _ = self._run_each(self._calls(script, by_batch))
        return sum(map(int, answers.values()))

    def _calls(self, script: str, by_batch: Mapping[str, Iterable[Any]]) -> dict[str, Call]:
        """Return a call for each batch, with these records."""
        return {
            batch_id: self._store.call(script, batch_id, records=records)
            for batch_id, records in by_batch.items()
        }

    def _claim(self, page: tuple[str, int], claim_requests: Iterable[ClaimRequest]) -> Call:
        batch_id, number = page
        return self._store.call(
            "claim",
            batch_id,
            page=number,
            max_attempts=self._store.settings.max_attempts,
            records=[
                (one.index, one.token, int(one.alone) + 2 * int(one.answered))
                for one in claim_requests
            ],
        )

    def _settle(self, page: tuple[str, int], settlements: Iterable[Settlement]) -> Call:
        batch_id, number = page
        return self._store.call(
            "settle",
            batch_id,
            page=number,
            alike_limit=self._store.settings.alike_limit,
            records=[
                (
                    *(one.index, one.token, one.shard, one.attempt, one.status, one.code),
                    *(pack_outcome(one.outcome, one.output), int(one.busy * 1e6)),
                    _usage_json(one.usage),
                )
                for one in settlements
            ],
        )

    def _keep(self, checkpoints: Sequence[Checkpoint]) -> dict[str, Call]:
        by_batch: dict[str, list[tuple[int, str, str, str]]] = defaultdict(list)
        for one in checkpoints:
            asked = one.claim_request
            usage = _usage_json({} if one.usage is None else one.usage.counts())
            by_batch[asked.batch_id].append((asked.index, asked.token, one.steps, usage))
        return self._calls("keep", by_batch)


def _told_of(calls: Iterable[str], answers: Iterable[Any]) -> Refused:
    """Log the calls that failed, and return their errors by batch."""
    refused = {
        batch_id: answer
        for batch_id, answer in zip(calls, answers, strict=False)
        if isinstance(answer, LedgerRefused)
    }
    for batch_id, error in refused.items():
        logger.error("batch damaged batch=%s: %s", batch_id, error)
    return refused


def _usage_json(usage: Mapping[str, int]) -> str:
    # What does not fit is left out: a script that fails at a counter would leave half of its work.
    return json.dumps({name: n for name, n in usage.items() if abs(n) <= _LARGEST})


def _by_page(asked: Sequence[ClaimRequest | Settlement]) -> dict[tuple[str, int], list[int]]:
    """Group positions of `asked` by batch and page, as a call is about one page."""
    pages: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, one in enumerate(asked):
        pages[one.batch_id, page_of(one.index)].append(place)
    return pages
