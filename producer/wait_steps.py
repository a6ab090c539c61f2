"""Describe a wait as steps, which sync and async code carry out in their own ways.

A generator yields what is to be done next and gets the answer, or the error, back. Its pages go to
the caller. So each wait is written once: `run_steps` blocks for a step, `arun_steps` awaits it.
"""

import time
from asyncio import sleep
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import Any, Final, Generic, NamedTuple, ParamSpec, TypeVar

from batchord.ledger.errors import LedgerRefused, LedgerUnavailable
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.producer.async_edge import AsyncEdge

#: Seconds for which a wait that has begun bears a Redis that cannot be reached.
PATIENCE: Final = 60.0
#: Seconds between two tries meanwhile.
_RETRY: Final = 0.2

P = ParamSpec("P")
T = TypeVar("T")


class Ask(NamedTuple):
    """Make a short call to the ledger; its answer is sent back."""

    call: Callable[[], Any]


class Sleep(NamedTuple):
    """Let this many seconds pass."""

    seconds: float


class AwaitEvent(NamedTuple):
    """Wait until the batch has an event behind `after`, `timeout` seconds at most."""

    batch_id: str
    after: str
    timeout: float = float("inf")


class Page(NamedTuple, Generic[T]):
    """Hand items over to the caller."""

    items: list[T]


Step = Ask | Sleep | AwaitEvent
#: Yields steps, and returns a value.
Steps = Generator[Step, Any, T]
#: Yields steps and, in between, pages.
PagedSteps = Generator[Step | Page[T], Any, None]


def ask(seconds: float, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Steps[T]:
    """Ask the ledger; while it is unavailable, ask again for `seconds`."""
    found: T = yield from patiently(seconds, Ask(partial(call, *args, **kwargs)))
    return found


def patiently(seconds: float, step: Step) -> Steps[Any]:
    """Carry out a step; while the ledger is unavailable, repeat it for `seconds`.

    What Redis refuses for good, and what is damaged, is raised at once.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return (yield step)
        except LedgerUnavailable as error:
            passes = not isinstance(error, LedgerRefused) or error.passes
            if not passes or time.monotonic() >= until:
                raise
            yield Sleep(_RETRY)


class Waits:
    """Carries out steps: blocking, or awaiting beside the caller's event loop."""

    def __init__(self, reader: BatchReader, edge: AsyncEdge) -> None:
        self._reader = reader
        self._edge = edge

    def result(self, steps: Steps[T]) -> T:
        """Block until the steps have ended; return what they return."""
        outcome: list[T] = []
        for _ in self.pages(_returned(steps, outcome)):
            raise AssertionError("steps with a result have no pages")
        return outcome[0]

    async def aresult(self, steps: Steps[T]) -> T:
        """As `result`, without a thread that waits."""
        outcome: list[T] = []
        async for _ in self.apages(_returned(steps, outcome)):
            raise AssertionError("steps with a result have no pages")
        return outcome[0]

    def pages(self, steps: PagedSteps[T]) -> Iterator[list[T]]:
        """Yield the pages of the steps, blocking in between."""
        answer = _Answer()
        while (step := answer.to(steps)) is not None:
            if isinstance(step, Page):
                yield step.items
                continue
            try:
                answer.value = self._carry_out(step)
            except Exception as error:  # noqa: BLE001
                answer.error = error  # the generator decides

    async def apages(self, steps: PagedSteps[T]) -> AsyncIterator[list[T]]:
        """Yield the pages of the steps, awaiting in between."""
        answer = _Answer()
        while (step := answer.to(steps)) is not None:
            if isinstance(step, Page):
                yield step.items
                continue
            try:
                answer.value = await self._await(step)
            except Exception as error:  # noqa: BLE001
                answer.error = error

    def _carry_out(self, step: Step) -> Any:
        match step:
            case Ask(call):
                return call()
            case Sleep(seconds):
                time.sleep(seconds)
            case AwaitEvent(batch_id, after, timeout):
                self._reader.wait_event(batch_id, after, timeout)
        return None

    async def _await(self, step: Step) -> Any:
        match step:
            case Ask(call):
                return await self._edge.call(call)
            case Sleep(seconds):
                await sleep(seconds)
            case AwaitEvent(batch_id, after, timeout):
                await self._edge.wait_event(batch_id, after, timeout)
        return None


class _Answer:
    """The answer to the generator's last step: its value or its error."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: Exception | None = None

    def to(self, steps: PagedSteps[T]) -> Step | Page[T] | None:
        """Tell the generator; return its next step, None at its end."""
        value, error = self.value, self.error
        self.value = self.error = None
        try:
            return steps.send(value) if error is None else steps.throw(error)
        except StopIteration:
            return None


def _returned(steps: Steps[T], outcome: list[T]) -> PagedSteps[Any]:
    outcome.append((yield from steps))
