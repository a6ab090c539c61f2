"""The ledger in plain Python: what each transition must answer, and what must be true after it.

`LedgerModel.answered` is told of every script that has run, in order. It fails if the answer is not
what it must be, and then does to its own dictionaries what the script has done to Redis. It knows
no pages, no counters and no clock: counts are counted, and whether a lease, a window or a silence
is over is what the test has said.
"""

from collections.abc import Sequence
from typing import Any

from batchord.ledger.models import BatchStatus as S
from batchord.ledger.models import ItemStatus
from tests.support.ledger_items import Ended, ItemsModel


class LedgerModel(ItemsModel):
    """One batch."""

    def answered(self, name: str, args: Sequence[Any], answer: Any) -> None:
        """A script has run."""
        getattr(self, f"_{name}")([str(a) if isinstance(a, int) else a for a in args], answer)

    # Submitting.

    def _open(self, args: list[Any], answer: int) -> None:
        assert answer == 1
        self._to(S.VALIDATING)

    def _append(self, args: list[Any], answer: str) -> None:
        if self.status is not S.VALIDATING:
            assert answer == "gone"
            return
        self.silent = False
        for at in range(2, len(args), 3):
            index = int(args[at])
            if args[1] == "1":
                others = {i: name for i, name in self.custom_ids.items() if i != index}
                if args[at + 2] in others.values():
                    assert answer == f"repeated {args[at + 2]}"
                    return
                self.custom_ids[index] = args[at + 2]
            self.inputs[index] = args[at + 1]
        assert answer == "ok"

    def _seal(self, args: list[Any], answer: str) -> None:
        assert answer == ("gone" if self.status is None else "ok")
        if self.status is S.VALIDATING:
            self._to(S.IN_PROGRESS)

    def _abort(self, args: list[Any], answer: int) -> None:
        alive = int(args[0]) > 0 and not self.silent
        gone = self.status is None or (self.status is S.VALIDATING and not alive)
        assert answer == gone
        if gone and self.status is not None:
            self._to(None)

    # The sweep.

    def _overtaken(self, args: list[Any], answer: list[int]) -> None:
        for index in answer:
            assert int(index) in self.cut[int(args[0])]
            assert int(index) not in self.outcomes
            assert int(index) not in self.runs

    # Shards.

    def _next_shard(self, args: list[Any], answer: list[int]) -> None:
        again = {shard for shard, _ in self.again}
        counted = [i for n in range(self.published) if n not in again for i in self.cut[n]]
        waits = (
            bool(self.again)
            or self.published == 0
            or self.cut[self.published - 1].stop < len(self.inputs)
        )
        may = self.status is S.IN_PROGRESS and not self.publishing and waits
        if not answer:
            assert not may or set(counted) - set(self.outcomes), "it waits for nothing"
            return
        assert may
        number, start, stop, *_, repeated = answer
        if repeated:
            assert (number, range(start, stop)) == (self.again[0][0], self.cut[number])
        else:
            assert not self.again
            assert number == self.published
            if number == len(self.cut):
                self.cut.append(range(start, stop))
            assert self.cut[number] == range(start, stop)
            assert start == (self.cut[number - 1].stop if number else 0) < stop <= len(self.inputs)
        self.publishing = True

    def _shard_published(self, args: list[Any], answer: int) -> None:
        shard = int(args[0])
        head = bool(self.again) and self.again[0][0] == shard
        recorded = self.sealed and not self.ended and (head or shard == self.published)
        assert answer == recorded
        if not recorded:
            return
        if head:
            self.again.pop(0)
        else:
            self.published += 1
        self.publishing = False
        if shard not in self.closed:
            self.open.add(shard)

    def _gather(self, args: list[Any], answer: int) -> None:
        shard = int(args[0])
        if self.status is None:
            assert answer == -1
            return
        missing = len(self.cut[shard]) - self.settled_in(shard)
        assert answer == (0 if shard in self.closed else missing)
        if answer or shard in self.closed:
            return
        self.closed.add(shard)
        self.open.discard(shard)
        self._finalize_if_done()

    def _finalize_if_done(self) -> None:
        """The one rule: what has nothing left to do ends, paused or not."""
        if self.status in (S.IN_PROGRESS, S.PAUSED) and self.all_closed and self.nothing_left:
            self.retrying = None
            self._to(S.FINALIZING)

    # Steering and the end.

    def _pause(self, args: list[Any], answer: str) -> None:
        if self.status is S.IN_PROGRESS and not self.nothing_left:
            self._to(S.PAUSED)
        assert answer == (self.status or "")

    def _resume(self, args: list[Any], answer: str) -> None:
        given = len(args) > 1
        if self.status is S.PAUSED or (given and self.status is S.IN_PROGRESS):
            before, self.budget = self.budget, int(args[1]) if given else self.budget
            if self.over_budget:
                self.budget = before
                assert answer == "over"
                return
        if self.status is S.PAUSED:
            self._to(S.IN_PROGRESS)
            self.alike, self.alike_n, self.reason = None, 0, None
            self._finalize_if_done()
        assert answer == (self.status or "")

    def _cancel(self, args: list[Any], answer: str) -> None:
        if self.status in (S.IN_PROGRESS, S.PAUSED):
            self._to(S.CANCELLING)
            self.ends_as = S.CANCELLED
        assert answer == (self.status or "")

    def _expire(self, args: list[Any], answer: int) -> None:
        live = self.status in (S.IN_PROGRESS, S.PAUSED)
        due = self.window_over and live and not self.nothing_left
        assert answer == due
        if due:
            self._to(S.FINALIZING)
            self.ends_as = S.EXPIRED

    def _end_page(self, args: list[Any], answer: int) -> None:
        if self.ends_as is S.COMPLETED or self.status not in (S.CANCELLING, S.FINALIZING):
            assert answer == 0
            return
        running = 0
        for index in range(int(args[1]), int(args[2])):
            run = self.runs.get(index)
            if index in self.outcomes:
                continue
            if run and run.lease == "alive":
                running += 1
                continue
            self.runs.pop(index, None)
            self.idle.pop(index, None)
            self.outcomes[index] = Ended(ItemStatus(self.ends_as), run.attempts if run else 0)
        assert answer == running

    def _commit(self, args: list[Any], answer: int) -> None:
        if self.status in (S.FINALIZING, S.CANCELLING):
            assert answer == self.complete
            if answer:
                if not any(one.status is ItemStatus.EXPIRED for one in self.outcomes.values()):
                    self.ends_as = S.CANCELLED if self.ends_as is S.CANCELLED else S.COMPLETED
                self._to(self.ends_as)
                self.ends += 1
                assert self.ends <= 1 + self.reopenings
        else:
            assert answer == (-1 if self.ended or self.status is None else 0)

    def _finish(self, args: list[Any], answer: str) -> None:
        live = self.status in (S.IN_PROGRESS, S.PAUSED)
        if live and (args[1] == "1" or self.retrying != "lease"):
            self.retrying = None
        self._finalize_if_done()
        assert answer == (self.status or "")

    def _retry_begin(self, args: list[Any], answer: int) -> None:
        again = self.status is not None and not self.ended and args[3] == self.retrier
        assert answer == (self.status is S.COMPLETED or again)
        if self.status is S.COMPLETED:
            self.retrier = args[3]
            self._to(S.IN_PROGRESS)
            self.retrying = "lease"
            self.window_over = False
            self.reopenings += 1

    def _retry_shard(self, args: list[Any], answer: int) -> None:
        if self.status is None or args[2] != self.retrier:
            assert answer == -1
            return
        shard, codes = int(args[0]), args[3:]
        complete = self.settled_in(shard) == len(self.cut[shard])
        if self.status is not S.IN_PROGRESS or not self.retrying or not complete:
            assert answer == 0
            return
        self.retrying = "lease"
        failed = [
            index
            for index in self.cut[shard]
            if self.outcomes[index].status is ItemStatus.FAILED
            and (not codes or self.outcomes[index].code in codes)
        ]
        assert answer == len(failed)
        for index in failed:
            self.history.setdefault(index, []).append(self.outcomes.pop(index))
            self.starts[index] = 0
        if failed:
            self.alike, self.alike_n, self.reason = None, 0, None
            self.closed.discard(shard)
            self.again.append((shard, len(failed)))

    def _purge(self, args: list[Any], answer: int) -> None:
        assert answer == (-1 if self.status is None else int(self.ended))
        if self.ended:
            self._to(None)

    def _forget(self, args: list[Any], answer: int) -> None:
        # It may be about one that was there before.
        assert answer or self.status is not None

    def _note(self, args: list[Any], answer: int) -> None:
        assert answer == (self.status is not None and not self.ended)

    def _audit(self, args: list[Any], answer: int) -> None:
        assert answer == (self.status is not None)

    def _free_key(self, args: list[Any], answer: int) -> None:
        assert answer <= (self.status is None)
