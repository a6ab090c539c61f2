"""Whatever is done to a batch, in any order, and whichever process dies: the promise holds.

A state machine drives the ledger's scripts through our own Python on a real server, and
`ledger_model` says what each must answer. Any operation may be broken off, or overtaken by others,
between two of its round trips. At the end misfortune stops, and the batch must come to its end.

    BATCHORD_TEST_EXAMPLES=2000 python -m pytest tests/ledger/test_ledger_machine.py

runs as many examples, new ones each time; without it a few run, the same ones each time.
"""

import logging
import os
import sys
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from batchord.ledger.models import BatchStatus
from tests.conftest import Deploy
from tests.support.ledger_bench import Bench
from tests.support.ledger_desk import CODES, PAGE, Held
from tests.support.ledger_draws import FAULTS, SOME, Fault
from tests.support.ledger_rules import (
    ProducerRules,
    during,
    messages_wait,
    sealed,
    some_held,
    some_run,
    some_told,
)

EXAMPLES: Final = int(os.environ.get("BATCHORD_TEST_EXAMPLES", "0"))

pytestmark = pytest.mark.timeout(600 + EXAMPLES)

PROFILE: Final = settings(
    max_examples=EXAMPLES or 60,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=not EXAMPLES,
    suppress_health_check=list(HealthCheck),
)


class Machine(ProducerRules):
    """Rules are what producers, workers, users and misfortune do."""

    # Workers.

    @messages_wait
    @rule(which=st.integers(0, 30), alone=st.booleans(), twice=st.booleans(), fault=FAULTS)
    def begin(self, which: int, alone: bool, twice: bool, fault: Fault) -> None:
        """A message comes, perhaps twice; what runs then ends later, or never."""
        message = self.bench.message(which)
        self.bench.take(message)
        if twice:
            self.bench.deliver(message, alone=alone, ends=None)
        self.do(lambda: self.bench.deliver(message, alone=alone, ends=None), fault)

    @messages_wait
    @rule(which=st.integers(0, 30), ends=st.sampled_from(["succeed", *CODES]), fault=FAULTS)
    def run(self, which: int, ends: str, fault: Fault) -> None:
        """A message comes, and comes again later; what runs ends at once."""
        message = self.bench.message(which)
        self.do(lambda: self.bench.deliver(message, alone=False, ends=ends), fault)

    @messages_wait
    @rule(count=st.integers(1, 30), ends=st.sampled_from(["succeed", *CODES]))
    def run_many(self, count: int, ends: str) -> None:
        """The workers are quick; gathers come first."""
        for _ in range(count):
            if self.bench.queue():
                message = self.bench.message(0)
                self.bench.take(message)
                self.bench.deliver(message, alone=True, ends=ends)

    def some_of(self, held: list[Held], which: set[int]) -> list[Held]:
        some = [held[i] for i in sorted({place % len(held) for place in which})] if held else []
        return list({one.index: one for one in some}.values())

    @property
    def running(self) -> list[Held]:
        return [one for one in self.bench.held if one.told is None]

    @some_run
    @rule(which=SOME, how=st.sampled_from(["succeed", "stop", *CODES]), fault=FAULTS)
    def settle(self, which: set[int], how: str, fault: Fault) -> None:
        some = self.some_of(self.running, which)
        self.do(lambda: self.bench.settle(some, how), fault)

    @some_held
    @rule(which=SOME, how=st.sampled_from(["succeed", "stop", *CODES]))
    def settle_late(self, which: set[int], how: str) -> None:
        """A worker that has held an item, says what it likes."""
        self.bench.settle(self.some_of(self.bench.held, which), how)

    @some_told
    @rule(which=SOME)
    def settle_again(self, which: set[int]) -> None:
        """The answer was lost, and the call is repeated."""
        some = self.some_of([one for one in self.bench.held if one.told], which)
        self.bench.tell([one.told for one in some if one.told])

    @some_run
    @rule(which=SOME, alone=st.booleans())
    def claim_again(self, which: set[int], alone: bool) -> None:
        """The answer was lost; or a suspect is alone now."""
        for one in self.some_of(self.running, which):
            pairs = [(one.index, one.token)]
            self.bench.claim(self.bench.batch_id, one.shard, pairs, alone=alone)

    @some_held
    @rule(which=SOME)
    def beat(self, which: set[int]) -> None:
        held = {one.index: one.token for one in self.some_of(self.bench.held, which)}
        if held:
            self.bench.item_leases.beat(self.bench.batch_id, held)

    @some_run
    @rule(which=SOME, requeue=st.booleans())
    def release(self, which: set[int], requeue: bool) -> None:
        """A worker is told to end: what it holds goes back, and its message to the queue."""
        self.bench.release(self.some_of(self.running, which), requeue=requeue)

    @some_run
    @rule(which=SOME)
    def keep(self, which: set[int]) -> None:
        """Steps have ended, and what they have given is kept."""
        self.bench.keep(self.some_of(self.running, which))

    @some_run
    @rule(which=SOME)
    def put_off(self, which: set[int]) -> None:
        """Attempts end without an outcome; the next ones come later."""
        self.bench.put_off(self.some_of(self.running, which))

    # Users.

    @some_told
    @rule(fault=FAULTS)
    def cancel(self, fault: Fault) -> None:
        self.do(self.bench.cancel, fault)

    @some_held
    @rule(fault=FAULTS)
    def pause(self, fault: Fault) -> None:
        self.do(self.bench.pause, fault)

    @messages_wait
    @rule(rounds=st.integers(1, 5), how=st.sampled_from(["succeed", *CODES]))
    def pause_while_the_last_run(self, rounds: int, how: str) -> None:
        """The workers are quick, a pause comes as they run what is left, and then that ends."""
        for _ in range(rounds):
            self.bench.settle(self.running, how)
            self.bench.begin_all()
        self.bench.pause()
        self.bench.settle(self.running, how)

    @precondition(during(BatchStatus.PAUSED, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING))
    @rule(more=st.none() | st.integers(-2, 8), fault=FAULTS)
    def resume(self, more: int | None, fault: Fault) -> None:
        self.do(lambda: self.bench.resume(more), fault)

    @precondition(during(BatchStatus.COMPLETED, BatchStatus.IN_PROGRESS))
    @rule(codes=st.none() | st.sampled_from([[code] for code in CODES]), fault=FAULTS)
    def retry_failed(self, codes: list[str] | None, fault: Fault) -> None:
        self.do(lambda: self.bench.retry(codes), fault)

    @precondition(during(BatchStatus.CANCELLED, BatchStatus.EXPIRED))
    @rule(fault=FAULTS)
    def purge(self, fault: Fault) -> None:
        self.do(self.bench.purge, fault)

    # Misfortune, and what mends it.

    @some_run
    @rule(which=st.none() | SOME)
    def leases_end(self, which: set[int] | None) -> None:
        """The worker that holds these items, or all, has died or is frozen."""
        self.bench.leases_end(sorted(self.model.runs) if which is None else sorted(which))

    @messages_wait
    @rule(which=st.none() | st.integers(0, 30))
    def lose_messages(self, which: int | None) -> None:
        waiting = self.bench.queue()
        if waiting:
            for message in waiting if which is None else [waiting[which % len(waiting)]]:
                self.bench.take(message)

    @some_run
    @rule(
        which=SOME,
        times=st.integers(1, 4),
        alone=st.booleans(),
        late=st.none() | st.sampled_from(["succeed", *CODES]),
    )
    def take_over(self, which: set[int], times: int, alone: bool, late: str | None) -> None:
        """Freeze a worker that holds items, let others claim them and die; and then wake it."""
        some = self.some_of(self.running, which)
        for one in some * times:
            self.bench.leases_end([one.index])
            self.bench.claim_anew(one, alone=alone)
        if late:
            self.bench.settle(some, late)

    @some_held
    @rule(whose=st.sampled_from(["publisher", "retrier", "window", "waiting"]))
    def time_passes(self, whose: str) -> None:
        match whose:
            case "publisher":
                self.bench.publisher_falls_silent()
            case "retrier":
                self.bench.retrier_falls_silent()
            case "waiting":
                self.bench.what_waits_comes_due()
            case _:
                self.bench.window_ends()

    @rule(fault=FAULTS)
    def sweep(self, fault: Fault) -> None:
        self.do(self.bench.sweep, fault)

    @sealed
    @rule(blindly=st.booleans(), fault=FAULTS)
    def commit(self, blindly: bool, fault: Fault) -> None:
        self.do(lambda: self.bench.commit(blindly=blindly), fault)

    # What must be true at any time.

    @invariant()
    def the_promise_holds(self) -> None:
        self.witness.check()

    def teardown(self) -> None:
        """Misfortune stops: within a few rounds the batch ends, in order, and can be purged."""
        if sys.exception() is not self.handled:
            return  # it has failed already
        self.bench.come_to_the_end(CODES[0])
        if self.model.ended:
            self.witness.check()
            self.bench.window_ends()
            self.do(self.bench.retry, self.amid_retry)
            self.bench.come_to_the_end("succeed")
        self.witness.check_the_end()


@pytest.fixture
def bench(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Bench]:
    """Leases last, the sweep waits for nothing, and pages are so small that there are several."""
    rooms = ("storage.keys", "storage.transitions", "storage.item_reader", "storage.event_reader")
    for module in (*rooms, "lifecycle.batch_control"):
        monkeypatch.setattr(f"batchord.ledger.{module}.PAGE_SIZE", PAGE)
    settings = {"lease": 3600, "sweep_interval": 1e-9, "stall_timeout": 1e-9}
    caplog.set_level(logging.ERROR, logger="batchord.worker")
    bench = Bench(deploy(max_attempts=3, submit_timeout=3600, **settings))
    yield bench
    bench.clear()
    bench.close()


def test_each_item_gets_one_outcome_and_the_batch_one_end_whatever_happens(bench: Bench) -> None:
    class OnThisBench(Machine):
        def __init__(self) -> None:
            super().__init__(bench)

    run_state_machine_as_test(OnThisBench, settings=PROFILE)
