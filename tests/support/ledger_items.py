"""The state of a batch in plain Python, and what workers do to its items; see `ledger_model`."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchord.ledger.core.compression import unpack_outcome
from batchord.ledger.core.json_values import decode
from batchord.ledger.models import BatchStatus, ItemStatus

S = BatchStatus

#: The only steps that a batch's status may take; None: there is no such batch.
STEPS: Mapping[BatchStatus | None, set[BatchStatus | None]] = {
    None: {S.VALIDATING},
    S.VALIDATING: {S.IN_PROGRESS, None},
    S.IN_PROGRESS: {S.PAUSED, S.CANCELLING, S.FINALIZING},
    S.PAUSED: {S.IN_PROGRESS, S.CANCELLING, S.FINALIZING},
    S.CANCELLING: {S.CANCELLED},
    S.FINALIZING: {S.COMPLETED, S.EXPIRED},
    S.COMPLETED: {S.IN_PROGRESS, None},  # retry_failed; purge
    S.CANCELLED: {None},
    S.EXPIRED: {None},
}


@dataclass
class Run:
    """The holder of an item."""

    token: str
    attempts: int
    #: "": started | "?": its last start waits until it is alone | "!": to be settled as lost.
    mark: str = ""
    #: "alive" | "over" | "waits": put off | "due": its time has come | "": nobody watches it.
    lease: str = "alive"


@dataclass
class Ended:
    """An item's outcome."""

    status: ItemStatus
    attempts: int
    output: Any = None
    code: str | None = None
    token: str = ""
    #: As the worker sent it; empty if no worker did.
    text: str = ""


@dataclass
class ItemsModel:
    """One batch, and the transitions of its items."""

    max_attempts: int
    status: BatchStatus | None = None
    ends_as: BatchStatus = S.COMPLETED
    inputs: dict[int, str] = field(default_factory=dict)
    custom_ids: dict[int, str] = field(default_factory=dict)
    silent: bool = False
    window_over: bool = False
    runs: dict[int, Run] = field(default_factory=dict)
    outcomes: dict[int, Ended] = field(default_factory=dict)
    #: How often each item was started since it last had no history.
    starts: Counter[int] = field(default_factory=Counter)
    history: dict[int, list[Ended]] = field(default_factory=dict)
    #: Shards as they were cut, and which of them are recorded as published, are closed, run again.
    cut: list[range] = field(default_factory=list)
    published: int = 0
    publishing: bool = False
    closed: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    #: Shards to be published again, and how many items of each were to run again.
    again: list[tuple[int, int]] = field(default_factory=list)
    #: None | "lease": someone is about to have items run again | "over": who was may be dead.
    retrying: str | None = None
    #: The token of the call that began it.
    retrier: str = ""
    ends: int = 0
    reopenings: int = 0
    #: Tokens that are counted; of them, by item that has no outcome, what was counted meanwhile.
    calls: int = 0
    counted: Counter[int] = field(default_factory=Counter)
    #: Starts of items without an outcome that came to an end.
    ended_starts: Counter[int] = field(default_factory=Counter)
    #: Of tokens, of which each call uses one; None: none.
    budget: int | None = None
    #: The code that the first items have failed with so far, and how many of them, -1: one has
    #: ended in another way.
    alike: str | None = None
    alike_n: int = 0
    #: The code of the reason that is noted.
    reason: str | None = None
    #: Whether identical inputs run once.
    dedupe: bool = False
    #: With dedupe, by input: the item that runs; and what waits for its outcome.
    firsts: dict[str, int] = field(default_factory=dict)
    waiting: dict[int, list[int]] = field(default_factory=dict)
    #: Such items: "waits" | "due".
    idle: dict[int, str] = field(default_factory=dict)

    def _to(self, status: BatchStatus | None) -> None:
        assert status in STEPS[self.status], f"{self.status} -> {status}"
        self.status = status

    @property
    def complete(self) -> bool:
        """Whether each item has an outcome."""
        return len(self.outcomes) == len(self.inputs)

    @property
    def nothing_left(self) -> bool:
        """Whether it is to end, as nobody is about to have items run again."""
        return self.complete and self.retrying != "lease"

    @property
    def all_closed(self) -> bool:
        return sum(len(self.cut[shard]) for shard in self.closed) == len(self.inputs)

    @property
    def ended(self) -> bool:
        return self.status is not None and self.status.ended

    @property
    def sealed(self) -> bool:
        return self.status not in (None, S.VALIDATING)

    def settled_in(self, shard: int) -> int:
        """Items of a shard that workers have settled."""
        return sum(i in self.outcomes and bool(self.outcomes[i].text) for i in self.cut[shard])

    # Transitions: what they must answer, and what they do.

    def _claim(self, args: list[Any], answer: list[Any]) -> None:
        for at, got in zip(range(3, len(args), 3), answer[3:], strict=True):
            expected = self._claimed(int(args[at]), args[at + 1], args[at + 2] == "1")
            assert got[: len(expected)] == expected

    def _claimed(self, index: int, token: str, alone: bool) -> list[Any]:
        run = self.runs.get(index)
        if self.status is None or index not in self.inputs:
            return ["unknown"]
        if index in self.outcomes:
            return ["settled"]
        if self.status is not S.IN_PROGRESS or self.window_over:
            return ["stopped", "expired" if self.status is S.IN_PROGRESS else str(self.status)]
        ours = run is not None and run.token == token
        if run and (run.lease == "waits" or (run.lease == "alive" and not ours)):
            return ["held"]
        attempts = run.attempts if run else 0
        if self.dedupe and not (run and ours) and (answer := self._twin_claimed(index, token)):
            return answer
        strikes = attempts - self.ended_starts[index]
        if run and ours and run.mark != "?":
            mark = run.mark
        elif 0 < strikes == self.max_attempts - 1 and not alone:
            mark = "?"
        elif strikes >= self.max_attempts:
            mark = "!"
        else:
            mark, attempts = "", attempts + 1
            self.starts[index] += 1
            assert self.starts[index] - self.ended_starts[index] <= self.max_attempts
        self.runs[index] = Run(token, attempts, mark)
        if mark == "?":
            return ["suspect"]
        return ["lost", attempts] if mark == "!" else ["run", attempts, self.inputs[index]]

    def _twin_claimed(self, index: int, token: str) -> list[Any] | None:
        """Another item has the same input: this one gets its outcome, or waits for it."""
        first = self.firsts.setdefault(self.inputs[index], index)
        if first == index:
            return None
        if self.idle.get(index) == "waits":
            return ["held"]
        if first not in self.outcomes:
            self.idle[index] = "waits"
            self.waiting.setdefault(first, []).append(index)
            return ["held"]
        self.idle.pop(index, None)
        attempts = 1 + (self.runs[index].attempts if index in self.runs else 0)
        self.runs[index] = Run(token, attempts)
        self.starts[index] += 1
        return ["same", attempts]

    def is_twin(self, index: int) -> bool:
        """Whether it gets the outcome of another item."""
        return self.dedupe and self.firsts.get(self.inputs[index], index) != index

    def _let_go(self, index: int) -> None:
        """Let what has waited for the outcome of this item be claimed."""
        for twin in self.waiting.pop(index, []):
            if twin in self.idle:
                self.idle[twin] = "due"

    def _settle(self, args: list[Any], answer: list[int]) -> None:
        told: Counter[int] = Counter()
        ends: list[Ended] = []
        before = self.calls
        at, *answers = 2, *answer[:-2]
        for got in answers:
            index, token, shard, attempt, status, _, text, _, usage = args[at : at + 9]
            used = json.loads(usage)["input_tokens"]
            at += 9
            before_it = len(self.outcomes)
            as_expected = self._settled(int(index), token, int(attempt), ItemStatus(status), text)
            if len(self.outcomes) > before_it:
                self.calls += max(0, used - self.counted.pop(int(index), 0))
                self.ended_starts.pop(int(index), None)
                ends.append(self.outcomes[int(index)])
                self._let_go(int(index))
            assert (got > 0) == as_expected
            told[int(shard)] += got == 2
        self._look_at_the_budget(self.calls > before)
        self._look_whether_all_fail_alike(int(args[1]), ends)
        for shard, times in told.items():
            complete = shard not in self.closed and self.settled_in(shard) == len(self.cut[shard])
            assert times <= complete

    def _settled(self, index: int, token: str, attempt: int, status: ItemStatus, text: str) -> bool:
        run = self.runs.get(index)
        if run is None:
            there = self.outcomes.get(index)
            return there is not None and (there.attempts, there.text) == (attempt, text)
        if run.token != token or run.mark == "?":
            return False
        outcome = decode(unpack_outcome(text))
        code = (outcome.get("error") or {}).get("code")
        self.outcomes[index] = Ended(status, run.attempts, outcome["output"], code, token, text)
        del self.runs[index]
        return True

    def _beat(self, args: list[Any], answer: list[str]) -> None:
        lost = []
        for index, token in self._pairs(args[1:]):
            run = self.runs.get(index)
            if run and run.token == token:
                run.lease = "alive"
            else:
                lost.append(str(index))
        assert answer == lost

    @property
    def over_budget(self) -> bool:
        """Whether as much is used as may be, and there is something left to do."""
        return self.budget is not None and self.calls >= self.budget and not self.complete

    def _look_at_the_budget(self, settled: bool) -> None:
        watched = sum(run.lease in ("alive", "over") for run in self.runs.values())
        left = len(self.inputs) - len(self.outcomes) - watched
        if settled and self.status is S.IN_PROGRESS and self.over_budget and left > 0:
            self._to(S.PAUSED)
            self.reason = "budget_exceeded"

    def _look_whether_all_fail_alike(self, limit: int, ends: list[Ended]) -> None:
        if not limit:
            return
        for one in ends:
            failed = one.status is ItemStatus.FAILED
            if failed and self.alike_n >= 0 and self.alike in (None, one.code):
                self.alike, self.alike_n = one.code, self.alike_n + 1
            elif failed or one.status is ItemStatus.SUCCEEDED:
                self.alike_n = -1
        if ends and self.alike_n >= limit and self.status is S.IN_PROGRESS:
            self.reason = self.alike
            if not self.complete:
                self._to(S.PAUSED)

    def _release(self, args: list[Any], answer: int) -> None:
        released = 0
        for index, token in self._pairs(args):
            run = self.runs.get(index)
            if run is None or run.token != token:
                continue
            released += 1
            if not run.mark:
                run.attempts -= 1
                self.starts[index] -= 1
            run.token, run.mark, run.lease = "released", "", ""
            if run.attempts == 0:
                del self.runs[index]
        assert answer == released

    def _keep(self, args: list[Any], answer: int) -> None:
        kept = 0
        for at in range(0, len(args), 4):
            index, run = int(args[at]), self.runs.get(int(args[at]))
            if run is not None and (run.token, run.mark) == (args[at + 1], ""):
                used = json.loads(args[at + 3])["input_tokens"]
                self.calls += max(0, used - self.counted[index])
                self.counted[index] = used
                kept += 1
        assert answer == kept

    def _put_off(self, args: list[Any], answer: int) -> None:
        put_off = 0
        for at in range(0, len(args), 4):
            index, run = int(args[at]), self.runs.get(int(args[at]))
            if run is not None and (run.token, run.mark) == (args[at + 1], ""):
                run.token, run.lease = "waits", "waits"
                if int(args[at + 3]):
                    self.ended_starts[index] += 1
                else:
                    run.attempts -= 1
                    self.starts[index] -= 1
                put_off += 1
        assert answer == put_off

    def _come_due(self, args: list[Any], answer: list[str]) -> None:
        due = {index for index, run in self.runs.items() if run.lease == "due"}
        idle = {index for index, state in self.idle.items() if state == "due"}
        assert set(map(int, answer)) == due | idle
        for index in idle:
            del self.idle[index]
        for index in due:
            self.runs[index].lease = ""

    @staticmethod
    def _pairs(args: list[Any]) -> Iterator[tuple[int, str]]:
        return zip(map(int, args[::2]), args[1::2], strict=True)

    def _lapsed(self, args: list[Any], answer: list[str]) -> None:
        over = {index for index, run in self.runs.items() if run.lease == "over"}
        assert set(map(int, answer)) == over
        for index in over:
            self.runs[index].lease = ""
