"""The scheduler of a process's items: one limit for all tasks, one round trip for many items.

Everything here happens on the process's event loop; `ledger_batcher` talks to the ledger
beside it.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import replace
from typing import Final, cast

from batchord.chains.ratelimit.guard import of_batch
from batchord.chains.runtime.background import call_later, spawn
from batchord.chains.runtime.item_context import scope
from batchord.ledger.models import ItemStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import Claim, ClaimRequest, SettleResult
from batchord.ledger.storage.output_cache import OutputCache
from batchord.worker.execution.attempt import Tools, attempt
from batchord.worker.execution.cached_outputs import CachedOutputs
from batchord.worker.execution.chain_source import ChainSource
from batchord.worker.execution.checkpointer import Checkpointer, checkpoint
from batchord.worker.execution.deferral import Alarms, DeferredItem
from batchord.worker.execution.fault_attribution import Faults
from batchord.worker.execution.lease_heartbeat import LeaseHeartbeat
from batchord.worker.execution.ledger_batcher import HELD, BatchedAnswers, LedgerBatcher
from batchord.worker.execution.task_report import TaskReport
from batchord.worker.execution.throughput import Throughput
from batchord.worker.execution.work_items import (
    CompletedItem,
    HandedBack,
    PendingItem,
    Slot,
    TaskState,
    log,
    log_settled,
)

logger = logging.getLogger(__name__)

#: Seconds that it takes, amply, to get the next task.
LEAD: Final = 0.05
#: Seconds until a process that has nothing to do looks whether there is room that nobody was told
#: of: a producer stops after its first shards, and items may have ended before it said so.
HUNGRY: Final = 0.2


class ItemScheduler:
    """Runs items of all tasks, at most `slots` in flight; batches take turns.

    An item is claimed when it gets its slot and not before, so that what waits is nobody's.
    `on_room` is told of a batch that has room for another shard, and `on_due` of one that may have
    something to publish, as items have waited or as nothing waits here, in a thread of its own.
    """

    def __init__(
        self,
        item_leases: ItemLeases,
        leases: LeaseHeartbeat,
        settings: Settings,
        cache: OutputCache,
        chains: ChainSource,
        *,
        slots: int,
        on_room: Callable[[str], object],
        on_due: Callable[[str], object],
    ) -> None:
        self._leases = leases
        self._on_room = on_room
        self._slots = slots
        self._free = slots
        self._pace = Throughput()
        #: Slots' work that has ended in tasks that have not.
        self._ended_early = 0.0
        #: Works with waiting items, by batch; the batch that is served next stands first.
        self._waiting: dict[str, deque[TaskState]] = {}
        #: Items on their last start run one at a time, and nothing else beside them: what kills its
        #: process then is found out, and nobody is blamed for it.
        self._suspects: deque[PendingItem] = deque()
        self._on_last_start: ClaimRequest | None = None
        #: What runs is cut short then, so that a suspect need not wait for the slowest.
        self._drains: asyncio.TimerHandle | None = None
        self._drain_seconds = settings.last_start_wait
        self._cut: set[asyncio.Task[None]] = set()
        self._giving_back: asyncio.Task[None] | None = None
        self._checkpointer = Checkpointer(self._ask)
        self._ledger_batcher = LedgerBatcher(item_leases, leases, self._checkpointer)
        self._asking: asyncio.Task[None] | None = None
        #: What runs, by batch, and what becomes of it once its batch has been stopped.
        self._attempts: dict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._stopped: dict[str, ItemStatus] = {}
        self._begun: set[asyncio.Task[None]] = set()
        #: Set once the worker is about to end; what was claimed then goes back.
        self._closing = False
        self._handed_back: list[PendingItem] = []
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._alarms = Alarms(lambda batch_id: self._publisher.submit(on_due, batch_id))
        threads = ThreadPoolExecutor(2, thread_name_prefix="encode")
        self._tools = Tools(settings, CachedOutputs(cache, threads), threads, Faults(), chains)

    def slots_wanted(self) -> float:
        """Return how many slots' worth of items this process should have in hand.

        A task may carry many, and what waits here another process might run: so no more wait than
        will get their slots while the next task is on its way.
        """
        if self._suspects or self._on_last_start is not None:
            return 0.0
        return self._slots + self._ended_early + max(1.0, LEAD * self._pace.per_second)

    async def run(self, batch_id: str, shard: int, items: range, slots: int) -> TaskReport:
        """Run the items in `slots` slots, and return a report of their results.

        Raises:
            HandedBack: the worker is about to end.
            LedgerUnavailable: for the items concerned nothing is recorded; their leases run out.
        """
        return await self.start(batch_id, shard, items, slots)

    def start(
        self, batch_id: str, shard: int, items: range, slots: int
    ) -> asyncio.Future[TaskReport]:
        """Start what `run` runs, and return the future of the report or error."""
        ended: asyncio.Future[TaskReport] = asyncio.get_running_loop().create_future()
        if self._closing:
            ended.set_exception(HandedBack())
        elif not items:
            ended.set_result(TaskReport())
        else:
            per_slot = -(-len(items) // max(1, slots))
            work = TaskState(batch_id, shard, deque(items), per_slot, len(items), ended)
            ended.add_done_callback(lambda _: self._task_ended(work), context=Context())
            self._waiting.setdefault(batch_id, deque()).append(work)
            self._fill()
        return ended

    def _task_ended(self, work: TaskState) -> None:
        self._ended_early -= work.ended_early

    def stop(self, batches: dict[str, ItemStatus]) -> None:
        """Cancel the running items of these batches; each gets its batch's status here."""
        self._stopped = batches
        for batch_id in batches:
            # Again at each call: an item may have been claimed just before the batch was stopped.
            for task in self._attempts.get(batch_id, ()):
                if not task.cancelling():
                    task.cancel()

    def _forget(self, batch_id: str, task: asyncio.Task[None]) -> None:
        running = self._attempts[batch_id]
        running.discard(task)
        if not running:
            del self._attempts[batch_id]

    async def hand_back(self) -> None:
        """Release all running and waiting items without cost; return when that is recorded.

        The tasks raise `HandedBack`, and take no new items from here on.
        """
        self._closing = True
        for works in self._waiting.values():
            for work in works:
                while work.waiting:
                    work.waiting.popleft()
                    self._item_ended(work, HandedBack())
        self._waiting.clear()
        self._handed_back += self._suspects
        self._suspects.clear()
        await asyncio.sleep(0)  # what was begun a moment ago comes to its first step
        while self._begun or self._asking is not None:
            for tasks in self._attempts.values():
                for task in tasks:
                    task.cancel()
            await asyncio.wait({*self._begun, *filter(None, [self._asking])}, timeout=1)
        if self._giving_back is not None:
            await asyncio.wait([self._giving_back], timeout=1)
        mine, self._handed_back = self._handed_back, []
        await self._ledger_batcher.hand_back(mine)
        for one in mine:
            self._item_ended(one.slot.work, HandedBack())

    def _fill(self) -> None:
        """Give free slots to waiting items; batches take turns."""
        if self._suspects or self._on_last_start is not None:
            # Nothing else is begun; what runs ends first, or is handed back.
            self._drain()
            if self._empty and self._suspects:
                self._start_alone(self._suspects.popleft())
            self._ask()
            return
        while self._free and self._waiting:
            batch_id = next(iter(self._waiting))
            works = self._waiting.pop(batch_id)
            work = works[0]
            count = min(work.per_slot, len(work.waiting))
            slot = Slot(work, count)
            self._free -= 1
            for _ in range(count):
                self._ledger_batcher.wanted.append(
                    PendingItem(slot, work.claim_request(work.waiting.popleft()))
                )
            if not work.waiting:
                works.popleft()
            if works:
                self._waiting[batch_id] = works  # behind the others
        self._ask()

    @property
    def _empty(self) -> bool:
        """Return whether no item here would lose an attempt by the death of the process."""
        return (
            self._on_last_start is None
            and self._free == self._slots
            and not self._handed_back
            and self._giving_back is None
        )

    def _drain(self) -> None:
        """Start the timer after which the items beside a suspect are handed back."""
        if self._drains is None:
            self._drains = call_later(self._drain_seconds, self._cut_short)

    def _cut_short(self) -> None:
        self._drains = None
        if not self._suspects or self._on_last_start is not None or self._closing:
            return
        self._drain()  # an item may go on although it is cancelled
        running = {task for tasks in self._attempts.values() for task in tasks}
        if running:
            logger.warning(
                "%d items handed back after %g s: an item on its last start must run alone",
                *(len(running), self._drain_seconds),
            )
        self._cut |= running
        for task in running:
            task.cancel()

    def _give_back(self) -> None:
        if self._giving_back is None:
            self._giving_back = spawn(self._keep_giving_back())

    async def _keep_giving_back(self) -> None:
        try:
            while self._handed_back and not self._closing:
                await asyncio.sleep(0)  # what was cut short at the same time goes along
                mine, self._handed_back = self._handed_back, []
                error: Exception = HandedBack()
                try:
                    await self._ledger_batcher.hand_back(mine)
                except Exception as raised:  # noqa: BLE001
                    error = raised  # their leases run out
                for one in mine:
                    self._item_ended(one.slot.work, error)
        finally:
            self._giving_back = None
            self._fill()

    def _start_alone(self, suspect: PendingItem) -> None:
        self._free -= 1
        self._on_last_start = replace(suspect.claim_request, alone=True)
        self._ledger_batcher.wanted.append(
            PendingItem(Slot(suspect.slot.work, 1), self._on_last_start)
        )

    def _ask(self) -> None:
        if self._asking is None and self._ledger_batcher.waits:
            self._asking = spawn(self._keep_asking())

    async def _keep_asking(self) -> None:
        try:
            while self._ledger_batcher.waits:
                self._heard(await self._ledger_batcher.round_trip())
                # What is over at once goes with the next round trip: fewer of them, fuller ones.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        finally:
            self._asking = None

    def _heard(self, answers: BatchedAnswers) -> None:
        for aside, error in answers.aside:
            self._put_aside(aside, error)
        if answers.unanswered is not None:
            self._unanswered(*answers.unanswered)
        self._pace.ended(len(answers.settled))
        for one, receipt in answers.settled:
            self._settled(one, receipt)
        # What waits for an item with the same input has left its batch's window.
        left = {
            each.claim_request.batch_id
            for each, claim in answers.claimed
            if claim.verdict == "held" and claim.first is not None
        }
        for batch_id in left | {
            one.claim_request.batch_id for one, told in answers.settled if told.room
        }:
            self._publisher.submit(self._on_room, batch_id)
        for batch_id in {
            one.claim_request.batch_id for one, told in answers.settled if told.let_go
        }:
            self._alarms.set(batch_id, 0)
        if self._free and not self._waiting:
            for batch_id in left | {one.claim_request.batch_id for one, _ in answers.settled}:
                self._alarms.set(batch_id, HUNGRY)
        for each, claim in answers.claimed:
            self._claimed(each.slot, each.claim_request, claim)

    def _put_aside(self, one: DeferredItem, error: Exception | None) -> None:
        if one.seconds is None:
            one.work.report.refused["stopped"] += 1
        else:
            one.work.report.put_off[one.error.code] += 1
            self._alarms.set(one.claim_request.batch_id, one.seconds)
            log(
                one.claim_request,
                "item put off",
                code=one.error.code,
                seconds=round(one.seconds, 1),
            )
        self._item_ended(one.work, error)

    def _unanswered(
        self, finished: Iterable[CompletedItem], wanted: Iterable[PendingItem], error: Exception
    ) -> None:
        """Fail the tasks, as it is unknown what was recorded; the sweep brings the items back."""
        for one in finished:
            self._leases.drop([one.claim_request])
            self._item_ended(one.work, error)
        for each in wanted:
            self._end_turn(each.claim_request)
            self._item_ended(each.slot.work, error)
            self._leave(each.slot)

    def _claimed(self, slot: Slot, claim_request: ClaimRequest, claim: Claim) -> None:
        if claim.verdict == "suspect" and not self._closing:
            # It has cost all but one of its processes: it gives its slot to others until its turn.
            self._suspects.append(PendingItem(slot, claim_request))
            self._leave(slot)
            return
        if claim.verdict not in HELD:
            self._end_turn(claim_request)
            self._leases.drop([claim_request])  # of a suspect whose batch was stopped meanwhile
            slot.work.report.refused[claim.verdict] += 1
            self._item_ended(slot.work, claim.error)
            self._leave(slot)
            return
        if self._closing:
            self._handed_back.append(PendingItem(slot, claim_request))
            return
        task = spawn(self._attempt(slot, claim_request, claim))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _attempt(self, slot: Slot, claim_request: ClaimRequest, claim: Claim) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())

        def stops_as() -> ItemStatus | None:
            return self._stopped.get(claim_request.batch_id)

        # In here: a task that is cancelled before its first step never comes to its `except`.
        self._attempts[claim_request.batch_id].add(task)
        run = self._checkpointer.begin(claim_request, claim)
        try:
            with scope(run), of_batch(claim_request.batch_id):
                ended = await attempt(claim, self._tools, stops_as, run)
            if ended.aside and ended.error is not None:
                kept = checkpoint(claim_request, run)
                self._ledger_batcher.aside.append(
                    DeferredItem(
                        slot.work, claim_request, ended.error, kept, ended.put_off, ended.counts
                    )
                )
            else:
                if ended.error is not None and ended.error.retryable:
                    self._checkpointer.leave(claim_request, run)  # what else has failed begins anew
                self._ledger_batcher.finished.append(
                    CompletedItem(slot.work, claim_request, claim.attempt, ended)
                )
        except BaseException as error:
            # Cancelled by the process: it is about to end, or another item must run alone.
            if self._closing or task in self._cut:
                self._handed_back.append(
                    PendingItem(slot, claim_request, checkpoint(claim_request, run))
                )
                if not self._closing:
                    self._give_back()
                return
            self._leases.drop([claim_request])
            self._item_ended(slot.work, error)
            raise
        finally:
            self._cut.discard(task)
            self._checkpointer.end(run)
            self._forget(claim_request.batch_id, task)
            self._end_turn(claim_request)
            self._leave(slot)

    def _item_ended(self, work: TaskState, error: BaseException | None = None) -> None:
        share = 1 / work.per_slot
        work.ended_early += share
        self._ended_early += share
        work.item_ended(error)

    def _end_turn(self, claim_request: ClaimRequest) -> None:
        """Let the next suspect start if `claim_request` was the one that ran alone."""
        if claim_request is self._on_last_start:
            self._on_last_start = None

    def _leave(self, slot: Slot) -> None:
        """Free an item's share of its slot after its chain has ended or was not begun."""
        slot.left -= 1
        if slot.left == 0:
            self._free += 1
            self._fill()
        self._ask()

    def _settled(self, one: CompletedItem, receipt: SettleResult) -> None:
        if receipt.error is not None:
            self._item_ended(one.work, receipt.error)
            return
        report, code = one.work.report, one.ended.code
        if not receipt.recorded:
            report.taken_over += 1
        elif code is None:
            report.succeeded += 1
        else:
            report.failed[code] += 1
        report.shard_complete = report.shard_complete or receipt.shard_complete
        log_settled(one.claim_request, one.attempt, one.ended, recorded=receipt.recorded)
        self._item_ended(one.work)
