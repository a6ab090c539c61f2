"""When a failed call is made again, and how long to wait before."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from batchord.chains.explain import PutOff, explain
from batchord.chains.runtime.checkpoints import Checkpoints, Tries

T = TypeVar("T")

#: Seconds of the longest wait in the item's place in flight, where there is another way.
IN_PLACE: Final = 10.0

#: Doublings after which the wait has long reached any sensible cap.
_MAX_DOUBLINGS = 30


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """The number and the delays of retries; only errors that `explain` calls retryable.

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
    #: Seconds after the first call from which on none is made again; None: however long it takes.
    deadline: float | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts}")
        if min(self.initial, self.cap, self.patience) < 0:
            raise ValueError("initial, cap and patience must not be negative")
        if self.deadline is not None and self.deadline <= 0:
            raise ValueError(f"deadline must be positive seconds, not {self.deadline}")

    def delay(
        self,
        attempt: int,
        error: BaseException,
        rng: Callable[[], float] = random.random,
        *,
        elapsed: float = 0.0,
    ) -> float | None:
        """Seconds to wait after attempt number `attempt` (from 1) failed; None: do not try again.

        `elapsed`: seconds since the first one began.

        Without the provider's word it is full jitter: anything from 0 to the doubled wait. With
        it, it is never less than that, and up to a tenth more so that not all come back at once.
        """
        if attempt >= self.max_attempts:
            return None
        info = explain(error)
        if not info.retryable:
            return None
        if info.after is not None and info.after > self.patience:
            return None
        if info.after is not None:
            wait = info.after * (1 + 0.1 * rng())
        else:
            wait = rng() * min(self.cap, self.initial * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))
        late = self.deadline is not None and elapsed + wait > self.deadline
        return None if late else wait


#: Errors that are retried: their types, or a function that says so.
RetryIf = tuple[type[BaseException], ...] | Callable[[BaseException], bool]


@dataclass(frozen=True, kw_only=True)
class RetryByType(RetryPolicy):
    """The policy of LangChain's `with_retry`: errors by type, as `explain` does not decide.

    The wait before attempt n + 1 is `initial * exp_base ** (n - 1)` seconds and up to `jitter`
    more, `max` in all; never less than the provider asks for.
    """

    retry_if: RetryIf = (Exception,)
    #: Whether to wait at all.
    waits: bool = True
    initial: float = 1.0
    max: float = 60.0
    exp_base: float = 2.0
    jitter: float = 1.0

    def delay(
        self,
        attempt: int,
        error: BaseException,
        rng: Callable[[], float] = random.random,
        *,
        elapsed: float = 0.0,
    ) -> float | None:
        info = explain(error)
        if attempt >= self.max_attempts or info.needs_operator or not self._retries(error):
            return None
        if info.after is not None and info.after > self.patience:
            return None
        doubled = self.initial * self.exp_base ** min(attempt - 1, _MAX_DOUBLINGS)
        wait = min(self.max, doubled + self.jitter * rng()) if self.waits else 0.0
        wait = max(wait, info.after or 0.0)
        late = self.deadline is not None and elapsed + wait > self.deadline
        return None if late else wait

    def _retries(self, error: BaseException) -> bool:
        if isinstance(self.retry_if, tuple):
            return isinstance(error, self.retry_if)
        return self.retry_if(error)


#: How calls of a provider are made again unless the step is told otherwise.
DEFAULT_RETRY = RetryPolicy()


async def attempts(
    policy: RetryPolicy | None,
    call: Callable[[], Awaitable[T]],
    *,
    kept: Checkpoints | None = None,
    key: str | None = None,
) -> T:
    """Make the call until it succeeds or the policy gives up; then raises the last error.

    With `kept` a long wait is not made here: PutOff is raised, and the next attempt of the item
    goes on counting where this one was.
    """
    if policy is None:
        return await call()
    tries = Tries(since=time.time()) if kept is None or key is None else kept.tries(key)
    while True:
        tries = replace(tries, count=tries.count + 1)
        try:
            return await call()
        except PutOff:
            raise  # a retry inside of this call waits already: not a try
        except Exception as error:
            delay = policy.delay(tries.count, error, elapsed=time.time() - tries.since)
            if delay is None:
                raise
            if kept is not None and key is not None and delay > IN_PLACE:
                kept.tried(key, tries)
                raise PutOff(error, delay) from error
        await asyncio.sleep(delay)
