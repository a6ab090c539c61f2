"""Transitions: one run of a Lua script each, with its keys and arguments given by name."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from batchord.ledger.core.scripts import Argument, Call, script
from batchord.ledger.settings import Settings
from batchord.ledger.storage.connection import PROMPT, RedisConnection
from batchord.ledger.storage.keys import EVENTS_KEPT, PAGE_SIZE, Keys

#: Keys that a batch has one of for each page.
_PAGED: Final = frozenset({"inputs", "ids", "outcomes", "history"})


class TransitionStore(RedisConnection):
    """A connection that knows the ledger's keys, and builds and runs transitions."""

    def __init__(self, settings: Settings, *, retries: int = PROMPT) -> None:
        super().__init__(settings, retries=retries)
        self.keys = Keys(settings.namespace)
        #: Arguments that are the same in all calls of a script that takes them.
        self._common: Mapping[str, Argument] = {
            "events_kept": EVENTS_KEPT,
            "page_size": PAGE_SIZE,
            "lease_ms": int(settings.lease * 1000),
        }

    def call(
        self,
        name: str,
        batch_id: str = "",
        *,
        page: int = 0,
        keys: Mapping[str, str] | None = None,
        more_keys: Iterable[str] = (),
        records: Iterable[Any] = (),
        **args: Argument | None,
    ) -> Call:
        """Return a call of `ledger/lua/*/NAME.lua`.

        Its keys are those that `storage.keys` has by the names of the script's signature: of the
        batch, of its `page`, across batches, or from `keys`. `more_keys`, `records`: its repeated
        keys and arguments. `events_kept`, `page_size`, `lease_ms` and `batch_id` need not be given.

        Raises:
            BadSignature: an argument is missing, or the script has none of its name.
        """
        called = script(name)
        given = {"batch_id": batch_id, **self._common}
        values = {known: given[known] for known in called.args.required if known in given}
        values |= {known: value for known, value in args.items() if value is not None}
        of_batch, special = self.keys.batch(batch_id), keys or {}

        def key(wanted: str) -> str | None:
            if wanted in special:
                return special[wanted]
            if wanted in _PAGED:
                return str(getattr(of_batch, wanted)(page))
            found: str | None = getattr(of_batch, wanted, None) or getattr(self.keys, wanted, None)
            return found

        return called.call(key, values, more_keys=more_keys, records=records)

    def transition(self, name: str, batch_id: str = "", **given: Any) -> Any:
        """Run a script, with what `call` takes, and return its answer."""
        call = self.call(name, batch_id, **given)
        return self.run(call.name, call.keys, *call.args)
