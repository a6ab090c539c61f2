"""A provider in virtual time, and processes that call it."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from functools import partial

from batchord.chains.errors import RetryLater
from batchord.chains.ratelimit.guard import within
from batchord.chains.ratelimit.limits import LocalLimiter, RateLimit, install, limiter
from batchord.chains.runtime.retry import RetryPolicy, attempts
from batchord.chains.usage import Usage
from tests.support import virtual_time


@dataclass(kw_only=True)
class Provider:
    """A provider in virtual time, which counts what it refuses, after 5 ms.

    All processes share what they know of outages, and nothing else.
    """

    seconds: float
    in_flight: int | None = None
    a_second: int | None = None
    retry_after: float | None = None
    #: From when to when every call fails with this code, after `gives_up` seconds.
    down: tuple[float, float] = (-1.0, -1.0)
    code: str = "server_error"
    gives_up: float = 0.005
    flying: int = 0
    refused: int = 0
    taken: deque[float] = field(default_factory=deque)
    #: When calls came.
    calls: list[float] = field(default_factory=list)

    async def call(self) -> tuple[None, Usage]:
        now = virtual_time.now()
        self.calls.append(now)
        if self.down[0] <= now < self.down[1]:
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

    def serve(self, count: int, *, processes: int, slots: int) -> float:
        """Make so many calls, from places in flight of so many processes; return the seconds."""
        places = [process for process in range(processes) for _ in range(slots)]
        left = iter(range(count))

        async def place(process: int) -> None:
            for _ in left:
                limit = RateLimit(f"of process {process}")
                call = partial(within, limit, 1, self.call, target=RateLimit("all"))
                await attempts(RetryPolicy(max_attempts=1), call)

        async def some() -> float:
            install(LocalLimiter(clock=asyncio.get_running_loop().time))
            await asyncio.gather(*map(place, places))
            return virtual_time.now()

        before = limiter()
        try:
            return virtual_time.run(some())
        finally:
            install(before)
