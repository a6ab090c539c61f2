"""Texts that are wanted at the same moment, collected into as few requests as the limits allow.

Every text is waited for on its own: nobody waits for a batch, only `WINDOW` seconds for company.
"""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from contextvars import Context

from batchord.chains.errors import ChainError, RetryLater
from batchord.chains.ratelimit import limits
from batchord.chains.ratelimit.circuit_breaker import current_patience
from batchord.chains.ratelimit.guard import current_batch, within
from batchord.chains.ratelimit.limits import RateLimit
from batchord.chains.runtime.background import call_later, spawn
from batchord.chains.runtime.deadline import Deadline, current_deadline
from batchord.chains.runtime.item_context import keeping
from batchord.chains.runtime.retry import RetryPolicy, attempts
from batchord.chains.steps.embedding_request import Answer, EmbeddingRequest, Mode, Wanted
from batchord.chains.steps.vectors import Vector
from batchord.chains.usage import Usage

#: What the API takes in one request.
MAX_INPUTS = 2_048
MAX_TOKENS = 300_000
#: Seconds that a text waits for others.
WINDOW = 0.01

#: The vector of each text of a request, or what is wrong with it.
Found = list[Vector | ChainError]
#: Reports what was used.
Report = Callable[[Usage], None]
#: Sends one request for the texts, with a timeout in seconds (None: the default). Reports the
#: usage, and returns it, too.
Send = Callable[[Sequence[str], float | None, Report], Awaitable[tuple[Found, Usage]]]


def estimated_tokens(text: str) -> int:
    """Tokens of the text, rather too many than too few: a third of its bytes."""
    return len(text.encode(errors="replace")) // 3 + 1


class EmbeddingBatcher:
    """Collects the texts of one event loop.

    A request is made when it is full or `WINDOW` is over. Each attempt at it holds a permit of
    `gate`; the waits between attempts hold none. If a request fails for what may be the fault of
    one text, `EmbeddingRequest` finds that text, so that no other fails. A request that nobody
    waits for any more is cancelled.
    """

    def __init__(
        self,
        send: Send,
        *,
        gate: asyncio.Semaphore | None,
        retry: RetryPolicy | None,
        limit: RateLimit | None = None,
        target: RateLimit | None = None,
    ) -> None:
        self._send = send
        self._target = target
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
            gives_way=keeping() and current_patience() > 0,
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
        left = len(wanted)

        def answered(_: asyncio.Future[Answer]) -> None:
            # Counted: to look through all of them after each is quadratic.
            nonlocal left
            left -= 1
            if left == 0:
                request.cancel()  # does nothing to one that has answered them itself

        for one in wanted:
            one.answer.add_done_callback(answered, context=Context())

    async def _serve(self, wanted: Sequence[Wanted]) -> None:
        try:
            await EmbeddingRequest(self._ask).serve(wanted)
        finally:
            for one in wanted:  # the loop is shutting down: nobody may wait for ever
                if not one.answer.done():
                    one.answer.cancel()

    async def _ask(
        self,
        texts: Sequence[str],
        wanted: Sequence[Wanted],
        mode: Mode,
        report: Report,
    ) -> Found:
        """Send one request for the texts, on behalf of these."""
        deadlines = [one.deadline for one in wanted]

        async def call() -> tuple[Found | RetryLater, Usage]:
            report(Usage(requests=1))
            seconds = _half_of_what_is_left(deadlines) if mode.bounded else None
            try:
                return await self._send(texts, seconds, report)
            except RetryLater as error:
                if error.code != "timeout" or not mode.bounded:
                    raise
                return error, Usage()

        async def attempt() -> tuple[Found | RetryLater, Usage]:
            gate = None if self._gate is None else self._gate()
            async with gate or nullcontext():
                return await within(
                    self._limit,
                    limits.estimated_tokens(texts),
                    call,
                    target=self._target,
                    batch=wanted[0].batch,
                    deadlines=deadlines,
                    report=report,
                    gives_way=all(one.gives_way for one in wanted),
                    guarded=mode.guarded,
                )

        policy = self._retry if mode.retried else None
        # `EmbeddingRequest` tells by a probe whether it is the server's fault.
        found, _ = await attempts(policy, attempt, bears=False)
        if isinstance(found, RetryLater):
            raise found
        return found


def _half_of_what_is_left(deadlines: Sequence[Deadline | None]) -> float | None:
    left = [one.left for one in deadlines if one is not None]
    known = [seconds for seconds in left if seconds is not None]
    return min(known) / 2 if known else None
