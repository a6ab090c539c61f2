"""The first rules of `test_ledger_machine`: what producers do, and what happens amid it."""

import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from batchord.ledger.core.sharding import Cut
from batchord.ledger.models import BatchStatus
from tests.support.ledger_bench import Bench
from tests.support.ledger_draws import (
    AMID_RETRY,
    CUTS,
    FAULTS,
    SUBMISSIONS,
    WINDOWS,
    Fault,
    Submission,
)
from tests.support.ledger_model import LedgerModel
from tests.support.ledger_watch import Died
from tests.support.ledger_witness import Witness


def during(*statuses: BatchStatus | None) -> Callable[[Any], bool]:
    return lambda machine: machine.model.status in statuses


validating = precondition(during(BatchStatus.VALIDATING))
sealed = precondition(lambda machine: machine.model.sealed)
messages_wait = precondition(lambda machine: machine.model.sealed and machine.bench.queue())
some_held = precondition(lambda machine: machine.model.sealed and machine.bench.held)
some_run = precondition(lambda machine: machine.model.sealed and machine.running)
some_told = precondition(
    lambda machine: machine.model.sealed and any(one.told for one in machine.bench.held)
)


class ProducerRules(RuleBasedStateMachine):
    """Begins with a batch; the other rules are added to these."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        bench.clear()
        #: Hypothesis runs an example again while it handles what that one has raised.
        self.handled = sys.exception()
        self.witness = Witness(bench)
        #: What happens amid the retry at the end.
        self.amid_retry: Fault = None

    @property
    def model(self) -> LedgerModel:
        return self.bench.model

    def do(self, operation: Callable[[], object], fault: Fault = None) -> None:
        """Do it, and have something happen amid it."""
        amid: Any = nullcontext()
        if fault is not None:
            amid = self.bench.store.interrupted(fault[0], lambda: self.happens(fault[1]))
        with amid, suppress(Died):
            operation()

    def happens(self, what: str) -> None:
        """Deeds of others between two round trips of an operation; or its process dies there."""
        bench = self.bench
        match what:
            case "dies":
                raise Died
            case "workers":
                bench.work_off()
            case "sweep":
                bench.sweep()
            case "publisher":
                bench.publisher_falls_silent()
                bench.publish()
            case _ if self.model.sealed:
                {"cancel": bench.cancel, "pause": bench.pause, "retry": bench.retry}[what]()

    # Producers.

    @initialize(
        submission=SUBMISSIONS,
        far=st.sampled_from([*["sealed"] * 8, "written", "open"]),
        begun=st.integers(0, 5),
        budget=st.none() | st.integers(1, 20),
        alike=st.sampled_from([0, 2, 5]),
        dedupe=st.booleans(),
        fault=FAULTS,
        amid_retry=AMID_RETRY,
    )
    def submit(
        self,
        submission: Submission,
        far: str,
        begun: int,
        budget: int | None,
        alike: int,
        dedupe: bool,
        fault: Fault,
        amid_retry: Fault,
    ) -> None:
        """Most examples begin with a batch some of whose items run."""
        self.amid_retry, self.bench.budget = amid_retry, budget
        self.bench.dedupe = dedupe
        self.bench.watch_for_alike(alike)
        self.do(lambda: self.bench.submit(*submission, far), fault)
        for message in self.bench.queue()[:begun]:
            self.bench.take(message)
            self.bench.deliver(message, alone=False, ends=None)

    @precondition(during(None))
    @rule(submission=SUBMISSIONS, fault=FAULTS)
    def submit_another(self, submission: Submission, fault: Fault) -> None:
        self.witness = Witness(self.bench)
        self.do(lambda: self.bench.submit(*submission), fault)

    @validating
    @rule(count=st.integers(1, 12), fault=FAULTS)
    def append(self, count: int, fault: Fault) -> None:
        self.do(lambda: self.bench.append(count), fault)

    @precondition(lambda self: 0 in self.model.custom_ids)
    @validating
    @rule(fault=FAULTS)
    def append_repeated(self, fault: Fault) -> None:
        self.do(self.bench.append_repeated, fault)

    @precondition(lambda self: bool(self.model.inputs))
    @validating
    @rule(cut=CUTS, window=WINDOWS, fault=FAULTS)
    def seal(self, cut: Cut, window: float | None, fault: Fault) -> None:
        self.do(lambda: self.bench.seal(cut, window), fault)

    @validating
    @rule(fault=FAULTS)
    def abort(self, fault: Fault) -> None:
        self.do(self.bench.abort, fault)

    @validating
    @rule()
    def producer_falls_silent(self) -> None:
        self.bench.producer_falls_silent()

    @sealed
    @rule(fault=FAULTS)
    def publish(self, fault: Fault) -> None:
        self.do(self.bench.publish, fault)
