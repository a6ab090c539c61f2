"""When a failed call is made again, and how long to wait before."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from chains.errors import explain

T = TypeVar("T")

#: Doublings after which the wait has long reached any sensible cap.
_MAX_DOUBLINGS = 30


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently a call is made again; only errors that `explain` calls retryable.

    All times are seconds.
    """

    #: Calls in all, the first one included.
    max_attempts: int = 3
    #: The longest wait after the first failure; it doubles with each further one ...
    initial: float = 0.5
    #: ... up to this.
    cap: float = 8.0
    #: The longest wait on a provider's word that is slept through. An error that asks for more is
    #: raised at once, with `after`, so that the caller can put the item aside instead.
    patience: float = 120.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts}")
        if min(self.initial, self.cap, self.patience) < 0:
            raise ValueError("initial, cap and patience must not be negative")

    def delay(
        self, attempt: int, error: BaseException, rng: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds to wait after attempt number `attempt` (from 1) failed; None: do not try again.

        Without the provider's word it is full jitter: anything from 0 to the doubled wait. With
        it, it is never less than that, and up to a tenth more so that not all come back at once.
        """
        if attempt >= self.max_attempts:
            return None
        info = explain(error)
        if not info.retryable:
            return None
        if info.after is None:
            return rng() * min(self.cap, self.initial * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))
        if info.after > self.patience:
            return None
        return info.after * (1 + 0.1 * rng())


#: How calls of a provider are made again unless the step is told otherwise.
DEFAULT_RETRY = RetryPolicy()


async def attempts(policy: RetryPolicy | None, call: Callable[[], Awaitable[T]]) -> T:
    """Make the call until it succeeds or the policy gives up; then raises the last error."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return await call()
        except Exception as error:
            delay = None if policy is None else policy.delay(attempt, error)
            if delay is None:
                raise
        await asyncio.sleep(delay)
