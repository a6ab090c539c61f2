"""Calls that wait for a rate limit: all batches by turns, and those that hold places in time."""

import asyncio
import math
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class WaitingCall:
    """A call that waits. `allowed` is set once it may be made, and cancelled if it is given up."""

    #: As they were guessed; what is reserved is what such guesses came to lately.
    tokens: int
    batch: Hashable
    allowed: asyncio.Future[None]
    #: When its place in time comes, by the loop's clock.
    comes: float = math.inf
    reserved: int = 0


class PendingCalls(deque[WaitingCall]):
    """Calls that hold places in time, the next one first."""

    def due(self, now: float) -> list[WaitingCall]:
        """Return the calls whose place in time has come."""
        return [call for call in self if call.comes <= now]

    def drop_given_up(self) -> list[WaitingCall]:
        """Remove the calls that nobody waits for any more, and return them."""
        given_up = [call for call in self if call.allowed.done()]
        for call in given_up:
            self.remove(call)
        return given_up


class WaitingCalls:
    """Calls by batch; the batch that is served next stands first."""

    def __init__(self) -> None:
        self._by_batch: dict[Hashable, deque[WaitingCall]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_batch)

    def add(self, call: WaitingCall) -> None:
        """Let the call wait behind those of its batch."""
        self._by_batch.setdefault(call.batch, deque()).append(call)

    def take(self, most: float) -> list[WaitingCall]:
        """Take out at most `most` calls, one batch after the other, without those given up."""
        taken: list[WaitingCall] = []
        while self._by_batch and len(taken) + 1 <= most:
            batch = next(iter(self._by_batch))
            calls = self._by_batch.pop(batch)
            call = calls.popleft()
            if calls:
                self._by_batch[batch] = calls  # behind the others
            if not call.allowed.done():
                taken.append(call)
        return taken

    def put_back(self, calls: Iterable[WaitingCall]) -> None:
        """Let the calls wait again, before those that have waited for less long."""
        for call in reversed(list(calls)):
            call.comes = math.inf
            calls_of_batch = self._by_batch.pop(call.batch, deque())
            calls_of_batch.appendleft(call)
            self._by_batch = {call.batch: calls_of_batch, **self._by_batch}

    def clear(self) -> list[WaitingCall]:
        """Take out all calls."""
        calls = [call for each in self._by_batch.values() for call in each]
        self._by_batch.clear()
        return calls


def fail(calls: Iterable[WaitingCall], error: BaseException) -> None:
    """Raise the error, or the cancellation, in those that wait for the calls."""
    for call in calls:
        if call.allowed.done():
            continue
        if isinstance(error, Exception):
            call.allowed.set_exception(error)
        else:
            call.allowed.cancel()
