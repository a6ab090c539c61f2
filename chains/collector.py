"""Texts that are wanted at the same moment, collected into as few requests as the limits allow.

Every text is waited for on its own: nobody waits for a batch, only `WINDOW` seconds for company.
"""

import asyncio
import copy
import weakref
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from chains import limits
from chains.background import call_later, spawn
from chains.deadline import Deadline, current_deadline
from chains.errors import ChainError
from chains.limited import current_batch, within
from chains.limits import RateLimit
from chains.retry import RetryPolicy, attempts
from chains.usage import Usage

#: What the API takes in one request.
MAX_INPUTS = 2_048
MAX_TOKENS = 300_000
#: Seconds that a text waits for others.
WINDOW = 0.01

#: Errors that may be the fault of a single text.
_OF_ONE_TEXT = {"bad_request", "unprocessable"}

Vector = list[float]
#: Sends one request for the texts; the vectors are in their order.
Send = Callable[[list[str]], Awaitable[tuple[list[Vector], Usage]]]


def estimated_tokens(text: str) -> int:
    """Tokens of the text, rather too many than too few: a third of its bytes."""
    return len(text.encode(errors="replace")) // 3 + 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one text: its vector or its error, and its share of the usage."""

    usage: Usage
    vector: Vector | None = None
    error: Exception | None = None


@dataclass(eq=False, slots=True)
class Wanted:
    """One text, and the future that its answer is put into. Cancel it to give the text up."""

    text: str
    tokens: int
    answer: asyncio.Future[Answer]
    #: The batch that wants it, and the deadline of the item.
    batch: Hashable
    deadline: Deadline | None


class Collector:
    """Collects the texts of one event loop.

    A request is made when it is full or `WINDOW` is over. Each attempt at it holds a permit of
    `gate`; the waits between attempts hold none. If a request is refused for what may be the
    fault of one text, each half is tried again by itself, so that only the bad text fails. A
    request that nobody waits for any more is cancelled.
    """

    def __init__(
        self,
        send: Send,
        *,
        gate: asyncio.Semaphore | None,
        retry: RetryPolicy | None,
        limit: RateLimit | None = None,
    ) -> None:
        self._send = send
        # Weakly: a collector is kept for as long as its gate lives.
        self._gate = None if gate is None else weakref.ref(gate)
        self._retry = retry
        self._limit = limit
        self._waiting: list[Wanted] = []
        self._tokens = 0
        self._timer: asyncio.TimerHandle | None = None
        self._requests: set[asyncio.Task[None]] = set()

    def want(self, text: str) -> Wanted:
        """Ask for the text's vector."""
        loop = asyncio.get_running_loop()
        wanted = Wanted(
            text,
            estimated_tokens(text),
            loop.create_future(),
            batch=current_batch(),
            deadline=current_deadline(),
        )
        if self._tokens + wanted.tokens > MAX_TOKENS:
            self._flush()
        self._waiting.append(wanted)
        self._tokens += wanted.tokens
        if len(self._waiting) >= MAX_INPUTS:
            self._flush()
        elif self._timer is None:
            self._timer = call_later(WINDOW, self._flush)
        return wanted

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wanted = [one for one in self._waiting if not one.answer.done()]
        self._waiting, self._tokens = [], 0
        if not wanted:
            return
        # The request belongs to no single item, and reports to none.
        request = spawn(self._serve(wanted))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        for one in wanted:
            one.answer.add_done_callback(lambda _: _cancel_unwanted(request, wanted))

    async def _serve(self, wanted: Sequence[Wanted]) -> None:
        try:
            await self._ask(wanted, Usage())
        finally:
            for one in wanted:  # the loop is shutting down: nobody may wait for ever
                if not one.answer.done():
                    one.answer.cancel()

    async def _ask(self, wanted: Sequence[Wanted], spent: Usage) -> None:
        """Answer every text that is still wanted; `spent` is what asking has cost so far."""
        wanted = [one for one in wanted if not one.answer.done()]
        if not wanted:
            return
        texts = [one.text for one in wanted]

        def note(usage: Usage) -> None:
            nonlocal spent
            spent += usage

        async def call() -> tuple[list[Vector], Usage]:
            note(Usage(requests=1))
            return await self._send(texts)

        async def attempt() -> tuple[list[Vector], Usage]:
            gate = None if self._gate is None else self._gate()
            async with gate or nullcontext():
                return await within(
                    self._limit,
                    limits.estimated_tokens(texts),
                    call,
                    batch=wanted[0].batch,
                    deadlines=[one.deadline for one in wanted],
                    report=note,
                )

        try:
            vectors, used = await attempts(self._retry, attempt)
        except Exception as error:  # noqa: BLE001
            # It is handed to those who wait, whatever it is.
            if len(wanted) > 1 and isinstance(error, ChainError) and error.code in _OF_ONE_TEXT:
                middle = len(wanted) // 2
                await asyncio.gather(
                    self._ask(wanted[:middle], spent), self._ask(wanted[middle:], Usage())
                )
                return
            _answer(wanted, spent, error=error)
        else:
            _answer(wanted, spent + used, vectors=vectors)


def _cancel_unwanted(request: asyncio.Task[None], wanted: Sequence[Wanted]) -> None:
    # `all` stops at the first that is still wanted, so that this is cheap while many are.
    if not request.cancelling() and all(one.answer.done() for one in wanted):
        request.cancel()


def _answer(
    wanted: Sequence[Wanted],
    usage: Usage,
    *,
    vectors: Sequence[Vector] = (),
    error: Exception | None = None,
) -> None:
    live = [i for i, one in enumerate(wanted) if not one.answer.done()]
    shares = share_out(usage, [wanted[i].tokens for i in live])
    for i, share in zip(live, shares, strict=True):
        if error is None:
            answer = Answer(share, vector=vectors[i])
        else:
            # Each gets an error of its own: what is noted on one is not seen on the others.
            answer = Answer(share, error=_copy_of(error))
        wanted[i].answer.set_result(answer)


def _copy_of(error: Exception) -> Exception:
    try:
        copied = copy.copy(error)
    except Exception:  # noqa: BLE001
        return error  # not every exception can be made anew; a shared one is better than none
    copied.__cause__ = error.__cause__
    return copied.with_traceback(error.__traceback__)


def share_out(usage: Usage, weights: Sequence[int]) -> list[Usage]:
    """The usage of one request for each of its texts: they sum up to it exactly.

    Tokens and cost go by weight, what counts requests and their waits goes to the first.
    """
    total = sum(weights)
    shares = []
    before = 0
    for weight in weights:
        after = before + weight
        shares.append(
            Usage(
                requests=_of_first(usage.requests, before),
                input_tokens=_part(usage.input_tokens, before, after, total),
                cost_nanos=_part(usage.cost_nanos, before, after, total),
                unpriced_requests=_of_first(usage.unpriced_requests, before),
                rate_limit_waits=_of_first(usage.rate_limit_waits, before),
                rate_limit_wait_ms=_of_first(usage.rate_limit_wait_ms, before),
            )
        )
        before = after
    return shares


def _part(n: int | None, before: int, after: int, total: int) -> int | None:
    # What is due up to here, less what was due before: rounding never adds up.
    return None if n is None else n * after // total - n * before // total


def _of_first(n: int | None, before: int) -> int | None:
    return 0 if n is not None and before else n
