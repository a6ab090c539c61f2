"""How a batch shows itself: in a notebook, and live until its end."""

from html import escape
from typing import TYPE_CHECKING

from batchord.chains.errors import BatchordError
from batchord.ledger.models import BatchRecord
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_stats import Progress
from batchord.ledger.storage.events import BatchEvent
from batchord.producer.live_view import live_view
from batchord.producer.notebook_html import ROWS, batch_html, results_html
from batchord.producer.page_stream import Stream


class BatchViews:
    """The part of a `Batch` that shows it to a person."""

    id: str
    _reader: BatchReader

    if TYPE_CHECKING:

        def record(self) -> BatchRecord: ...
        async def arecord(self) -> BatchRecord: ...
        def progress(self) -> Progress: ...
        async def aprogress(self) -> Progress: ...
        def why_waiting(self) -> str: ...
        async def awhy_waiting(self) -> str: ...
        def events(self) -> Stream[BatchEvent]: ...

    def watch(self) -> BatchRecord:
        """Show how the batch goes until it ends, or the workers pause it; return its last record.

        In a notebook it is the output of the cell, else a bar on stderr. Ctrl-C, or the kernel's
        interrupt, ends the watching, and not the batch.
        """
        record = self.record()
        with live_view() as show:
            for _ in self.events():
                record = self.record()
                show(record, self.progress(), self.why_waiting())
                if record.reason is not None:
                    break
        return record

    async def awatch(self) -> BatchRecord:
        """As `watch`; holds no thread, and leaves the event loop free."""
        record = await self.arecord()
        with live_view() as show:
            async for _ in self.events():
                record = await self.arecord()
                show(record, await self.aprogress(), await self.awhy_waiting())
                if record.reason is not None:
                    break
        return record

    def _repr_html_(self) -> str:
        try:
            return batch_html(self.record(), self.progress(), self.why_waiting())
        except BatchordError as error:
            return escape(f"{self!r}: {error}")

    def _results_html(self) -> str:
        """Return the first items as they are now: what a notebook shows must not wait."""
        try:
            total = self.record().request_counts.total
            return results_html(self._reader.items(self.id, 0, ROWS), total)
        except BatchordError as error:
            return escape(f"{self!r}: {error}")
