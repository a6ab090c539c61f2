"""A store that is watched: its scripts are told to a model, and any round trip may be its last."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from batchord.ledger.core.scripts import Call
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_store import BatchStore
from tests.support.ledger_model import LedgerModel


class Died(Exception):
    """The process that talked to the ledger is no more."""


class WatchedStore(BatchStore):
    """The real store, for all processes of a test."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.model = LedgerModel(settings.max_attempts)
        self._fuse: tuple[int, Callable[[], object]] | None = None

    @contextmanager
    def interrupted(self, after: int, then: Callable[[], object]) -> Iterator[None]:
        """Have `then` happen once, behind that many round trips of what is done in here."""
        self._fuse = (after, then)
        try:
            yield
        finally:
            self._fuse = None

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Every round trip comes through here."""
        if self._fuse is not None:
            left, then = self._fuse
            self._fuse = (left - 1, then) if left else None
            if not left:
                then()
        with super().talking():
            yield

    def run(self, name: str, keys: Sequence[str], *args: str | int | float | bytes) -> Any:
        """Run a transition, and have the model check the answer."""
        answer = super().run(name, keys, *args)
        self.model.answered(name, args, answer)
        return answer

    def run_each(self, calls: Sequence[Call]) -> list[Any]:
        """Run several, likewise."""
        answers = super().run_each(calls)
        if len(calls) > 1:  # one alone has come through `run`
            for call, answer in zip(calls, answers, strict=True):
                self.model.answered(call.name, call.args, answer)
        return answers
