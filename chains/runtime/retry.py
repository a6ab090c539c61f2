"""When a failed call is made again, and how long to wait before."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from batchord.chains.errors import RetryLater
from batchord.chains.explain import ErrorInfo, PutOff, explain
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
        if not self._retries(error, info):
            return None
        if info.after is not None and info.after > self.patience:
            return None
        wait = self._backoff(attempt, info.after, rng)
        late = self.deadline is not None and elapsed + wait > self.deadline
        return None if late else wait

    def _retries(self, error: BaseException, info: ErrorInfo) -> bool:
        """Whether a call that failed so is made again at all."""
        return info.retryable

    def _backoff(self, attempt: int, after: float | None, rng: Callable[[], float]) -> float:
        """Return the seconds to wait; `after`: what the provider asks for."""
        if after is not None:
            return after * (1 + 0.1 * rng())
        return rng() * min(self.cap, self.initial * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))


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

    def _retries(self, error: BaseException, info: ErrorInfo) -> bool:
        if info.needs_operator:
            return False
        if isinstance(self.retry_if, tuple):
            return isinstance(error, self.retry_if)
        return self.retry_if(error)

    def _backoff(self, attempt: int, after: float | None, rng: Callable[[], float]) -> float:
        grown = self.initial * self.exp_base ** min(attempt - 1, _MAX_DOUBLINGS)
        wait = min(self.max, grown + self.jitter * rng()) if self.waits else 0.0
        return max(wait, after or 0.0)


#: How calls of a provider are made again unless the step is told otherwise.
DEFAULT_RETRY = RetryPolicy()


#: Of the calls of a step without a policy.
ONCE: Final = RetryPolicy(max_attempts=1)
#: Seconds between the calls that a target gets from an item which nobody can tell from an outage.
FIRST_DOUBT: Final = 0.5
LONGEST_DOUBT: Final = 5.0
_DOUBTS: Final = "!"
_ALONE: Final = "?"


class Target(Protocol):
    """The address, key and model that a failed call was made to, as other calls are."""

    #: Whether, before the failed call began, another one was answered that began after
    #: `first_failure`.
    was_well: bool

    @property
    def is_open(self) -> bool:
        """Whether it is known to be down."""
        ...

    def down_since(self, since: float) -> bool:
        """Whether it has been down after `since`, in seconds since 1970, and its probes failed."""
        ...

    async def is_well(self, *, ask: bool) -> bool:
        """Whether it has answered a call that began after the failed one had, and was not down.

        `ask`: if none is known, make a small call to find out.
        """
        ...


#: When the call failed first that is now made again; None: it has not.
_first_failure: ContextVar[float | None] = ContextVar("batchord_first_failure", default=None)


def first_failure() -> float | None:
    """Return when the running call failed before, in seconds since 1970, if that was in doubt."""
    return _first_failure.get()


async def attempts(
    policy: RetryPolicy | None,
    call: Callable[[], Awaitable[T]],
    *,
    kept: Checkpoints | None = None,
    key: str | None = None,
    bears: bool = True,
) -> T:
    """Make the call until it succeeds or the policy gives up; then raises the last error.

    What fails as calls do whose provider is down is the call's own fault only if the provider was
    well before it began and after it failed, as other calls show. Else it is not its last try,
    and failures from before the end of an outage do not count. With `kept` a long wait is not made
    here: PutOff is raised, and the next attempt of the item goes on counting where this one was.
    Without `bears` each failure is the call's own.
    """
    if kept is None or key is None:
        kept, key = None, ""
    began = time.time()
    failure: Exception | None = None
    if first_failure() is None and (kept is None or not kept.has_tries):
        # Nearly each call: what counts failures is made for the first one.
        try:
            return await call()
        except PutOff:
            raise  # as in `make`
        except Exception as error:  # noqa: BLE001
            failure = error
    return await _Calls(policy or ONCE, kept, key, began, bears=bears).make(call, failure)


class _Calls:
    """The calls that are made for one step of an item, until one succeeds."""

    def __init__(
        self,
        policy: RetryPolicy,
        kept: Checkpoints | None,
        key: str,
        began: float,
        *,
        bears: bool,
    ) -> None:
        self._bears = bears
        self._policy = policy
        self._kept = kept
        self._key = key
        self._tries = Tries(since=began) if kept is None else kept.tries(key, began)
        #: Failures that may have been the provider's, and when the one was after which it has to
        #: show that it is well.
        self._doubts = Tries() if kept is None else kept.tries(key + _DOUBTS)
        #: Those of them before which it was well.
        self._alone = Tries() if kept is None else kept.tries(key + _ALONE)

    async def make(self, call: Callable[[], Awaitable[T]], failure: Exception | None) -> T:
        """Make them, and return what the last one gives; the first has failed with `failure`."""
        if failure is not None:
            await asyncio.sleep(await self._wait(failure))
        while True:
            token = _first_failure.set(self._doubts.since if self._doubts.count else None)
            try:
                return await call()
            except PutOff:
                raise  # a retry inside of this call waits already: not a try
            except Exception as error:  # noqa: BLE001
                # `_wait` raises it again unless there is another call.
                wait = await self._wait(error)
            finally:
                _first_failure.reset(token)
            await asyncio.sleep(wait)

    async def _wait(self, error: Exception) -> float:
        """Return the seconds until the next call, or raise the error if no call follows."""
        target = error.target if isinstance(error, RetryLater) and self._bears else None
        if target is not None and self._of_outage(error, target):
            self._tries, self._doubts, self._alone = Tries(since=time.time()), Tries(), Tries()
        tries = replace(self._tries, count=self._tries.count + 1)
        delay = self._policy.delay(tries.count, error, elapsed=time.time() - tries.since)
        if target is not None and await self._in_doubt(target, last=delay is None):
            if delay is None or target.is_open:
                # Here its tries are not over yet: the next failure decides, if others succeed.
                return self._put_off(error, self._doubt(error), doubts=True)
        elif delay is None:
            if isinstance(error, RetryLater):
                error.target = None
            raise error
        self._tries = tries
        wait = delay or 0.0
        if self._kept is not None and wait > IN_PLACE:
            return self._put_off(error, wait, doubts=False)
        return wait

    def _of_outage(self, error: Exception, target: "Target") -> bool:
        """Whether the target was down since the first failure, which was its own then."""
        if explain(error).code == "rate_limited" or not self._doubts.count:
            return False
        return target.down_since(self._doubts.since)

    async def _in_doubt(self, target: "Target", *, last: bool) -> bool:
        """Whether the failure may be the target's: it has not shown that it was well around it.

        That takes an answer to a call that began after an earlier failure, and came before this
        call began; and one to a call that began after this call, or such an earlier one, failed.
        """
        now = time.time()
        after_doubt = self._doubts.count > 0 and target.was_well
        if after_doubt and self._alone.count:
            return False
        well_now = last and await target.is_well(ask=True)
        since = now if after_doubt or not self._doubts.count else self._doubts.since
        self._doubts = Tries(self._doubts.count + 1, since)
        self._alone = Tries(self._alone.count + after_doubt, now)
        return not (after_doubt and well_now)

    def _doubt(self, error: Exception) -> float:
        after = explain(error).after or 0.0
        longest = FIRST_DOUBT * 2.0 ** min(self._doubts.count - 1, _MAX_DOUBLINGS)
        return max(after, min(LONGEST_DOUBT, longest) * random.uniform(0.7, 1.0))

    def _put_off(self, error: Exception, seconds: float, *, doubts: bool) -> float:
        """Raise PutOff; return the seconds where there is nobody to put it off."""
        if self._kept is None:
            return seconds
        if doubts:
            self._kept.tried(self._key + _DOUBTS, self._doubts)
            self._kept.tried(self._key + _ALONE, self._alone)
        self._kept.tried(self._key, self._tries)
        raise PutOff(error, seconds, outage=doubts) from error
