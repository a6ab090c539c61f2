"""Texts that are wanted at the same moment, collected into as few requests as the limits allow.

Every text is waited for on its own: nobody waits for a batch, only `WINDOW` seconds for company.
"""

import asyncio
import copy
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from contextvars import Context
from dataclasses import dataclass

from chains.errors import ChainError
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


class Collector:
    """Collects the texts of one event loop.

    A request is made when it is full or `WINDOW` is over. Each attempt at it holds a permit of
    `gate`; the waits between attempts hold none. If a request is refused for what may be the
    fault of one text, each half is tried again by itself, so that only the bad text fails. A
    request that nobody waits for any more is cancelled.
    """

    def __init__(
        self, send: Send, *, gate: asyncio.Semaphore | None, retry: RetryPolicy | None
    ) -> None:
        self._send = send
        # Weakly: a collector is kept for as long as its gate lives.
        self._gate = None if gate is None else weakref.ref(gate)
        self._retry = retry
        self._waiting: list[Wanted] = []
        self._tokens = 0
        self._timer: asyncio.TimerHandle | None = None
        self._requests: set[asyncio.Task[None]] = set()

    def want(self, text: str) -> Wanted:
        """Ask for the text's vector."""
        loop = asyncio.get_running_loop()
        wanted = Wanted(text, estimated_tokens(text), loop.create_future())
        if self._tokens + wanted.tokens > MAX_TOKENS:
            self._flush()
        self._waiting.append(wanted)
        self._tokens += wanted.tokens
        if len(self._waiting) >= MAX_INPUTS:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(WINDOW, self._flush)
        return wanted

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wanted = [one for one in self._waiting if not one.answer.done()]
        self._waiting, self._tokens = [], 0
        if not wanted:
            return
        # An empty context: the request belongs to no single item, and reports to none.
        request = asyncio.get_running_loop().create_task(self._serve(wanted), context=Context())
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

        async def attempt() -> tuple[list[Vector], Usage]:
            nonlocal spent
            gate = None if self._gate is None else self._gate()
            async with gate or nullcontext():
                spent += Usage(requests=1)
                return await self._send(texts)

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
    """The usage of one request for each of its texts: tokens by weight, requests for the first.

    The shares sum up to the usage exactly.
    """
    total = sum(weights)
    shares = []
    passed, given = 0, 0
    for place, weight in enumerate(weights):
        passed += weight
        tokens = None
        if usage.input_tokens is not None:
            # What is due up to here, less what was given: rounding never adds up.
            due = usage.input_tokens * passed // total
            tokens, given = due - given, due
        requests = usage.requests if place == 0 else (None if usage.requests is None else 0)
        shares.append(Usage(requests=requests, input_tokens=tokens))
    return shares
