"""A ledger that goes back: a store whose server has an earlier state again behind some step."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis

from batchord.ledger.core.scripts import Call
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_store import BatchStore

#: Key -> what `DUMP` gives of it, and its time to live in ms; 0: none.
State = dict[bytes, tuple[bytes, int]]


class Point(NamedTuple):
    """Behind the `nth` run of a script, the server goes back by that many runs of scripts; by 99:
    to where it was before the first one."""

    script: str
    nth: int
    back: int


class RewindingStore(BatchStore):
    """The real store. Each state that the server had while it was used is known."""

    def __init__(
        self, settings: Settings, point: Point, *, then: Callable[[], object] | None = None
    ) -> None:
        super().__init__(settings)
        self._raw = redis.Redis.from_url(settings.url())
        self._states = [self._state()]
        self._point, self._runs, self._then = point, 0, then
        #: Whether it has gone back.
        self.struck = False

    def close(self) -> None:
        super().close()
        self._raw.close()

    def run(self, name: str, keys: Sequence[str], *args: str | int | float | bytes) -> Any:
        answer = super().run(name, keys, *args)
        self._passed(name)
        return answer

    def run_all(self, calls: Sequence[Call]) -> list[Any]:
        answers = super().run_all(calls)
        if len(calls) > 1:  # one alone has come through `run`
            self._passed(calls[0].name)
        return answers

    def _passed(self, name: str) -> None:
        if self.struck:
            return
        self._states.append(self._state())
        self._runs += name == self._point.script
        if self._runs == self._point.nth:
            self.struck = True
            self._go_back(self._states[max(0, len(self._states) - 1 - self._point.back)])
            if self._then is not None:
                self._then()

    def _state(self) -> State:
        names: Any = self._raw.keys()
        with self._raw.pipeline() as pipe:
            for name in names:
                pipe.dump(name)
                pipe.pttl(name)
            found = pipe.execute()
        pairs = zip(names, found[::2], found[1::2], strict=True)
        # A key without an end has -1; 0 is one that is about to expire.
        return {
            name: (dump, 0 if ttl == -1 else max(ttl, 1))
            for name, dump, ttl in pairs
            if dump is not None
        }

    def _go_back(self, state: State) -> None:
        with self._raw.pipeline() as pipe:
            pipe.flushdb()
            for name, (dump, ttl) in state.items():
                pipe.restore(name, ttl, dump)
            pipe.execute()
