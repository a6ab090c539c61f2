"""A step's call that an earlier attempt of the item has made is not made again."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeVar

from batchord.chains.runtime.checkpoints import Checkpoints, digest
from batchord.chains.runtime.item_context import current_run, place
from batchord.chains.runtime.retry import RetryPolicy, attempts

T = TypeVar("T")

#: Seconds from which on an output is worth keeping that nobody has paid for.
WORTH: Final = 0.01

#: The call that is made now: its item, and what tells it from the item's other calls.
_call: ContextVar[tuple[str, str, int] | None] = ContextVar("batchord_call", default=None)


class Repeatable(Protocol[T]):
    """A step as it is seen here."""

    retry: RetryPolicy | None

    @property
    def paid(self) -> bool: ...

    def fingerprint(self) -> Any: ...

    def dump(self, output: T) -> str | None: ...

    def load(self, text: str) -> T: ...


async def once(
    step: Repeatable[T], input: Any, options: Mapping[str, Any], call: Callable[[], Awaitable[T]]
) -> T:
    """Return what the call gives, or what it gave in an earlier attempt of the item.

    What is paid for is kept, and what took long. The same call is the same step at the same place
    of the chain with the same input.
    """
    run = current_run()
    kept = None if run is None else run.kept
    if kept is None:
        return await attempts(step.retry, call)
    key = _key(step, input, options) if step.paid or kept.has_earlier else None
    if key is not None and (text := kept.take(key)) is not None:
        try:
            return step.load(text)
        except ValueError:
            pass  # the step has changed meanwhile
    began = time.monotonic()
    output = await _called(kept, key, step.retry, call)
    if step.paid or time.monotonic() - began >= WORTH:
        _keep(kept, key or _key(step, input, options), step.dump(output))
    return output


async def _called(
    kept: Checkpoints, key: str | None, policy: RetryPolicy | None, call: Callable[[], Awaitable[T]]
) -> T:
    # A call without a key has no name either: not that of the step that makes it.
    token = _call.set(None if key is None else (kept.item, key, kept.begin(key)))
    try:
        return await attempts(policy, call, kept=None if key is None else kept, key=key)
    finally:
        _call.reset(token)


def _keep(kept: Checkpoints, key: str | None, text: str | None) -> None:
    if key is not None and text is not None:
        kept.put(key, text)


def _key(step: Repeatable[Any], input: Any, options: Mapping[str, Any]) -> str | None:
    return digest(place(), step.fingerprint(), input, options)


def idempotency_key(request: Any) -> str | None:
    """Return the name of a request, the same in each attempt: `BATCH:INDEX:DIGEST`.

    None outside of a submitted batch.
    """
    call = _call.get()
    if call is None:
        return None
    item, key, before = call
    return f"{item}:{digest(key, before, request) or key}"
