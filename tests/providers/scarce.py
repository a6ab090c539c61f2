"""A provider that bears only this many calls."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.support.openai_rules import Failure
from tests.support.openai_server import OpenAIServer, Request


class Scarce(OpenAIServer):
    """A provider that refuses what `bears` does not like, with a 429.

    `retry_after`: the seconds that it asks for; None: it does not say.
    """

    bears: Callable[["Scarce"], bool] = staticmethod(lambda _: True)
    retry_after: float | None = None

    async def _respond(self, http: Any, request: Request, answer: Any) -> Any:
        if not self.bears(self):
            return Failure(status=429, message="slow down", retry_after=self.retry_after).response()
        return await super()._respond(http, request, answer)


def in_flight(most: int) -> Callable[[Scarce], bool]:
    """Bear this many calls in flight."""
    return lambda server: server.in_flight <= most


def a_second(most: int) -> Callable[[Scarce], bool]:
    """Bear this many calls in any second."""
    taken: deque[float] = deque()

    def bears(_: Scarce) -> bool:
        now = time.monotonic()
        while taken and taken[0] <= now - 1:
            taken.popleft()
        if len(taken) >= most:
            return False
        taken.append(now)
        return True

    return bears
