"""A provider in virtual time, and processes that call it."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from functools import partial

from batchord.chains.errors import RetryLater
from batchord.chains.ratelimit.guard import within
from batchord.chains.ratelimit.limits import LocalLimiter, RateLimit, install, limiter
from batchord.chains.runtime.retry import ONCE, RetryPolicy, attempts
from batchord.chains.usage import Usage
from tests.support import virtual_time


@dataclass(frozen=True)
class OfProcess(RateLimit):
    """A limit under which a process has a queue of its own."""

    process: int = 0


@dataclass(kw_only=True)
class Provider:
    """A provider in virtual time, which counts what it refuses, after 5 ms.

    All processes share what is known of it.
    """

    seconds: float
    in_flight: int | None = None
    a_second: int | None = None
    retry_after: float | None = None
    #: From when to when every call fails with this code, after `gives_up` seconds; and likewise.
    down: tuple[float, float] = (-1.0, -1.0)
    down_again: tuple[float, float] = (-1.0, -1.0)
    #: The calls for this item always fail so.
    bad: int = -1
    code: str = "server_error"
    gives_up: float = 0.005
    flying: int = 0
    refused: int = 0
    taken: deque[float] = field(default_factory=deque)
    #: When calls came.
    calls: list[float] = field(default_factory=list)
    #: Items that ended with an error, and the calls for bad ones.
    failed: list[int] = field(default_factory=list)
    bad_calls: int = 0

    async def call(self, item: int = -2) -> tuple[None, Usage]:
        now = virtual_time.now()
        self.calls.append(now)
        self.bad_calls += item == self.bad
        downs = (self.down, self.down_again)
        if item == self.bad or any(began <= now < ended for began, ended in downs):
            await asyncio.sleep(self.gives_up)
            raise RetryLater("down", code=self.code)
        while self.taken and self.taken[0] <= virtual_time.now() - 1:
            self.taken.popleft()
        full = self.a_second is not None and len(self.taken) >= self.a_second
        if full or (self.in_flight is not None and self.flying >= self.in_flight):
            self.refused += 1
            await asyncio.sleep(0.005)
            raise RetryLater("busy", code="rate_limited", after=self.retry_after)
        self.taken.append(virtual_time.now())
        self.flying += 1
        await asyncio.sleep(self.seconds)
        self.flying -= 1
        return None, Usage()

    def serve(
        self,
        count: int,
        *,
        processes: int,
        slots: int,
        policy: RetryPolicy = ONCE,
        probed: bool = False,
    ) -> float:
        """Make this many calls, from places in flight of this many processes; return the seconds.

        `probed`: a small call of its own tells whether it answers.
        """
        places = [process for process in range(processes) for _ in range(slots)]
        left = iter(range(count))

        async def place(process: int) -> None:
            for item in left:
                limit = OfProcess("all", process=process)
                probe = self.call if probed else None
                call = partial(
                    within, limit, 1, partial(self.call, item), target=RateLimit("all"), probe=probe
                )
                try:
                    await attempts(policy, call)
                except RetryLater:
                    self.failed.append(item)

        async def some() -> float:
            install(LocalLimiter(clock=asyncio.get_running_loop().time))
            await asyncio.gather(*map(place, places))
            return virtual_time.now()

        before = limiter()
        try:
            return virtual_time.run(some())
        finally:
            install(before)
