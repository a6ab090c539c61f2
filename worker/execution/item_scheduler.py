"""The scheduler of a process's items: one limit for all tasks, one round trip for many items.

Everything here happens on the process's event loop; `ledger_batcher` talks to the ledger
beside it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import Final, cast

from batchord.chains.ratelimit.guard import of_batch
from batchord.chains.runtime.background import spawn
from batchord.chains.runtime.item_context import scope
from batchord.ledger.models import ItemStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import Claim, ClaimRequest, SettleResult
from batchord.ledger.storage.output_cache import OutputCache
from batchord.worker.execution.attempt import Tools
from batchord.worker.execution.attempt_span import traced_attempt
from batchord.worker.execution.cached_outputs import CachedOutputs
from batchord.worker.execution.chain_source import ChainSource
from batchord.worker.execution.checkpointer import Checkpointer, checkpoint
from batchord.worker.execution.deferral import DeferredItem
from batchord.worker.execution.fault_attribution import Faults
from batchord.worker.execution.handed_back import HandedBackItems
from batchord.worker.execution.last_starts import LastStarts
from batchord.worker.execution.lease_heartbeat import LeaseHeartbeat
from batchord.worker.execution.ledger_batcher import WITH_LEASE, BatchedAnswers, LedgerBatcher
from batchord.worker.execution.publish_prompts import PublishPrompts
from batchord.worker.execution.running_attempts import RunningAttempts
from batchord.worker.execution.task_report import TaskReport
from batchord.worker.execution.throughput import Throughput
from batchord.worker.execution.waiting_tasks import WaitingTasks
from batchord.worker.execution.work_items import (
    CompletedItem,
    HandedBack,
    PendingItem,
    Slot,
    TaskState,
    log_put_off,
    log_settled,
)

#: Seconds that it takes, amply, to get the next task.
LEAD: Final = 0.05


class ItemScheduler:
    """Runs items of all tasks, at most `slots` in flight; batches take turns.

    An item is claimed when it gets its slot and not before, so that what waits is nobody's.
    `on_room` is told of a batch that has room for another shard, and `on_due` of a batch whose
    deferred items may be due; both are called in a thread of their own.
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
        self._slots = slots
        self._free = slots
        self._pace = Throughput()
        #: Slots' worth of items that have ended in tasks which still run.
        self._ended_early = 0.0
        self._waiting = WaitingTasks()
        self._running = RunningAttempts()
        self._last_starts = LastStarts(
            self._running, settings.last_start_wait, lambda: self._closing
        )
        self._checkpointer = Checkpointer(self._ask)
        self._ledger_batcher = LedgerBatcher(item_leases, leases, self._checkpointer)
        self._handed_back = HandedBackItems(self._ledger_batcher, self._item_ended, self._fill)
        self._asking: asyncio.Task[None] | None = None
        #: Set once the worker is about to end; what was claimed then goes back.
        self._closing = False
        self._prompts = PublishPrompts(on_room, on_due)
        threads = ThreadPoolExecutor(2, thread_name_prefix="encode")
        self._tools = Tools(settings, CachedOutputs(cache, threads), threads, Faults(), chains)

    @property
    def in_flight(self) -> int:
        """The number of items that run now; from any thread."""
        return len(self._running.begun)

    def slots_wanted(self) -> float:
        """Return how many slots' worth of items this process should have in hand.

        No more than get a slot before the next task arrives: another process could run the rest.
        """
        if self._last_starts:
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
            task_state = TaskState(batch_id, shard, deque(items), per_slot, len(items), ended)
            ended.add_done_callback(lambda _: self._task_ended(task_state), context=Context())
            self._waiting.add(task_state)
            self._fill()
        return ended

    def _task_ended(self, task_state: TaskState) -> None:
        self._ended_early -= task_state.ended_early

    def stop(self, batches: dict[str, ItemStatus]) -> None:
        """Cancel the running items of these batches; each gets its batch's status here."""
        self._running.stop(batches)

    async def hand_back(self) -> None:
        """Release all running and waiting items without cost; return when that is recorded.

        The tasks raise `HandedBack`, and take no new items from here on.
        """
        self._closing = True
        for task_state in self._waiting.take_all():
            self._item_ended(task_state, HandedBack())
        self._handed_back.add(self._last_starts.waiting)
        self._last_starts.waiting.clear()
        await asyncio.sleep(0)  # what was begun a moment ago comes to its first step
        while self._running.begun or self._asking is not None:
            self._running.cancel_all()
            asking = filter(None, [self._asking])
            await asyncio.wait({*self._running.begun, *asking}, timeout=1)
        await self._handed_back.close()

    def _fill(self) -> None:
        """Give free slots to waiting items; batches take turns."""
        if self._last_starts:
            # Nothing else is begun; what runs ends first, or is handed back.
            self._last_starts.drain()
            empty = self._free == self._slots and not self._handed_back
            if empty and self._last_starts.alone is None and self._last_starts.waiting:
                self._free -= 1
                self._ledger_batcher.wanted.append(self._last_starts.next())
            self._ask()
            return
        while self._free and self._waiting:
            self._free -= 1
            self._ledger_batcher.wanted += self._waiting.fill_slot()
        self._ask()

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
        self._prompts.after(answers, idle=bool(self._free and not self._waiting))
        for each, claim in answers.claimed:
            self._claimed(each.slot, each.claim_request, claim)

    def _put_aside(self, one: DeferredItem, error: Exception | None) -> None:
        if one.seconds is None:
            one.task_state.report.refused["stopped"] += 1
        else:
            one.task_state.report.put_off[one.error.code] += 1
            self._prompts.due_in(one.claim_request.batch_id, one.seconds)
            log_put_off(one.claim_request, one.error.code, one.seconds)
        self._item_ended(one.task_state, error)

    def _unanswered(
        self, finished: Iterable[CompletedItem], wanted: Iterable[PendingItem], error: Exception
    ) -> None:
        """Fail the tasks, as it is unknown what was recorded; the sweep brings the items back."""
        for one in finished:
            self._leases.drop([one.claim_request])
            self._item_ended(one.task_state, error)
        for each in wanted:
            self._last_starts.ended(each.claim_request)
            self._item_ended(each.slot.task_state, error)
            self._leave(each.slot)

    def _claimed(self, slot: Slot, claim_request: ClaimRequest, claim: Claim) -> None:
        if claim.verdict == "suspect" and not self._closing:
            # One more lost process, and it is `worker_lost`: it gives its slot to others until its
            # turn.
            self._last_starts.waiting.append(PendingItem(slot, claim_request))
            self._leave(slot)
            return
        if claim.verdict not in WITH_LEASE:
            self._last_starts.ended(claim_request)
            self._leases.drop([claim_request])  # of a suspect whose batch was stopped meanwhile
            slot.task_state.report.refused[claim.verdict] += 1
            self._item_ended(slot.task_state, claim.error)
            self._leave(slot)
            return
        if self._closing:
            self._handed_back.add([PendingItem(slot, claim_request)])
            return
        self._running.begin(self._attempt(slot, claim_request, claim))

    async def _attempt(self, slot: Slot, claim_request: ClaimRequest, claim: Claim) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())

        # In here: a task that is cancelled before its first step never comes to its `except`.
        self._running.add(claim_request.batch_id, task)
        run = self._checkpointer.begin(claim_request, claim)
        stops_as = partial(self._running.stops_as, claim_request.batch_id)
        try:
            with scope(run), of_batch(claim_request.batch_id):
                ended = await traced_attempt(claim, self._tools, stops_as, run)
            if ended.aside and ended.error is not None:
                kept = checkpoint(claim_request, run)
                self._ledger_batcher.aside.append(
                    DeferredItem.of(slot.task_state, claim_request, ended.error, ended, kept)
                )
            else:
                if ended.error is not None and ended.error.retryable:
                    self._checkpointer.leave(claim_request, run)  # what else has failed begins anew
                self._ledger_batcher.finished.append(
                    CompletedItem(slot.task_state, claim_request, claim.attempt, ended)
                )
        except BaseException as error:
            # Cancelled by the process: it is about to end, or another item must run alone.
            if self._closing or task in self._running.cut_short:
                kept = checkpoint(claim_request, run)
                self._handed_back.add([PendingItem(slot, claim_request, kept)])
                if not self._closing:
                    self._handed_back.release_soon()
                return
            self._leases.drop([claim_request])
            self._item_ended(slot.task_state, error)
            raise
        finally:
            self._checkpointer.end(run)
            self._running.remove(claim_request.batch_id, task)
            self._last_starts.ended(claim_request)
            self._leave(slot)

    def _item_ended(self, task_state: TaskState, error: BaseException | None = None) -> None:
        share = 1 / task_state.per_slot
        task_state.ended_early += share
        self._ended_early += share
        task_state.item_ended(error)

    def _leave(self, slot: Slot) -> None:
        """Free an item's share of its slot after its chain has ended or was not begun."""
        slot.left -= 1
        if slot.left == 0:
            self._free += 1
            self._fill()
        self._ask()

    def _settled(self, one: CompletedItem, receipt: SettleResult) -> None:
        if receipt.error is not None:
            self._item_ended(one.task_state, receipt.error)
            return
        one.task_state.report.add(receipt, one.ended.code)
        log_settled(one.claim_request, one.attempt, one.ended, recorded=receipt.recorded)
        self._item_ended(one.task_state)
