"""Reading the items of batches: in any state, in input order and in the order of their ends."""

from collections.abc import Sequence
from typing import Any

from batchord.ledger.core.arguments import check_int
from batchord.ledger.core.compression import split_head, unpack
from batchord.ledger.core.json_values import decode
from batchord.ledger.errors import UnreadableBatch
from batchord.ledger.models import Item
from batchord.ledger.storage.keys import PAGE_SIZE, page_of
from batchord.ledger.storage.ledger_reader import LedgerReader
from batchord.ledger.storage.mappers import item_of, reading


class ItemReader(LedgerReader):
    """Answers about the items of a batch as the ledger has them now."""

    def items(self, batch_id: str, start: int, stop: int) -> list[Item]:
        """Return the items `start` to `stop` in input order, in any state, at most one page."""
        check_int("start", start, 0)
        check_int("stop", stop, 0)
        page = page_of(start)
        stop = min(stop, (page + 1) * PAGE_SIZE)
        return self.items_at(batch_id, range(start, stop)) if start < stop else []

    def items_at(self, batch_id: str, indexes: Sequence[int]) -> list[Item]:
        """Return the items at `indexes`, in that order; unknown ones are missing."""
        for index in indexes:
            check_int("index", index, 0)
        with reading(batch_id):
            return self._items_at(batch_id, indexes)

    def _items_at(self, batch_id: str, indexes: Sequence[int]) -> list[Item]:
        keys = self._keys.batch(batch_id)
        pages: dict[int, list[int]] = {}
        for index in indexes:
            pages.setdefault(page_of(index), []).append(index)
        with self._store.talking(), self._store.redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.meta, "total")
            for page, wanted in pages.items():
                pipe.hmget(keys.outcomes(page), [str(index) for index in wanted])
                pipe.exists(keys.ids(page))
            total, *replies = pipe.execute()
            known = range(int(total or 0))
            outcomes: dict[int, str | None] = {}
            for wanted, found in zip(pages.values(), replies[::2], strict=True):
                outcomes.update(zip(wanted, found, strict=True))
            named = [page for page, known in zip(pages, replies[1::2], strict=True) if known]
            open_ = [index for index in indexes if outcomes[index] is None]
            # Most batches have no custom_ids, and most items that are read have ended.
            for page in named:
                pipe.hmget(keys.ids(page), [str(index) for index in pages[page]])
            if open_:
                pipe.hmget(keys.runs, [str(index) for index in open_])
            replies = pipe.execute() if named or open_ else []
        ids: dict[int, str | None] = {}
        for page, found in zip(named, replies, strict=False):
            ids.update(zip(pages[page], found, strict=True))
        runs = dict(zip(open_, replies[-1], strict=True)) if open_ else {}
        return [
            item_of(index, outcomes[index], ids.get(index), runs.get(index))
            for index in indexes
            if index in known
        ]

    def inputs(self, batch_id: str, indexes: Sequence[int]) -> list[Any]:
        """Return the inputs at `indexes`, all in one page; None where one is missing."""
        with reading(batch_id):
            texts = self._texts(batch_id, indexes)
            return [None if text is None else decode(split_head(text)[1]) for text in texts]

    def input_texts(self, batch_id: str, indexes: Sequence[int]) -> list[str]:
        """Return the inputs at `indexes`, all in one page, as they were recorded.

        Raises:
            UnreadableBatch: one is missing.
        """
        texts = self._texts(batch_id, indexes)
        found = [text for text in texts if text is not None]
        if len(found) < len(texts):
            raise UnreadableBatch(batch_id, "inputs are missing")
        return found

    def _texts(self, batch_id: str, indexes: Sequence[int]) -> list[str | None]:
        if not indexes:
            return []
        key = self._keys.batch(batch_id).inputs(page_of(indexes[0]))
        with reading(batch_id):
            with self._store.talking():
                texts = self._redis.hmget(key, [str(index) for index in indexes])
            return [None if text is None else unpack(text) for text in texts]

    def completed(self, batch_id: str, start: int) -> list[int]:
        """Return up to a page of indexes in the order of their settling, from position `start`."""
        check_int("start", start, 0)
        done = self._keys.batch(batch_id).done
        with reading(batch_id):
            with self._store.talking():
                found = self._redis.lrange(done, start, start + PAGE_SIZE - 1)
            return [int(index) for index in found]
