"""The handle of a submitted batch: its state, its end and its results, read from the ledger."""

from collections.abc import Callable, Collection, Generator
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, get_args, overload

from batchord.ledger.budget import Budget
from batchord.ledger.core.arguments import check_codes, check_int
from batchord.ledger.errors import ItemNotSucceeded, OutputMismatch
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.models import BatchRecord, BatchStatus, Item, ItemStatus, Out, RequestCounts
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_stats import Progress
from batchord.ledger.storage.events import BatchEvent
from batchord.producer.async_edge import AsyncEdge, async_form
from batchord.producer.batch_steps import BatchSteps
from batchord.producer.batch_views import BatchViews
from batchord.producer.export import Exported, Format, format_of_name, write_lines, write_matrix
from batchord.producer.page_stream import Stream
from batchord.producer.standstill import why_waiting
from batchord.producer.tables.batch_tables import BatchTables
from batchord.producer.tables.remote_file import destination
from batchord.producer.tables.table_file import write_table
from batchord.producer.typed_outputs import OutputReader, not_succeeded
from batchord.producer.wait_steps import PagedSteps, Waits


class Batch(BatchTables, BatchViews, Generic[Out]):
    """A submitted batch. Methods answer with the ledger's current state.

    `status` and `request_counts` are what was last read, and make no call: `record()` reads them
    now, and so do `wait` and each iteration. To watch a batch, use `events()` or `record()`.

    With an `output_type`, given as it was submitted or retrieved, the outputs of its items are
    values of that type; one that is not raises `OutputMismatch` where it is read.

    Methods block; their twins with an `a` in front are awaited, and do not block the event loop.
    All raise `UnknownBatch` when the ledger has the batch no more, and `LedgerUnavailable` when
    Redis cannot be reached; a waiting method first retries for a minute.
    """

    def __init__(
        self,
        batch_id: str,
        reader: BatchReader,
        control: BatchControl,
        edge: AsyncEdge,
        outputs: OutputReader | None = None,
        known: BatchRecord | None = None,
    ) -> None:
        self.id = batch_id
        self._known = known
        self._outputs = outputs or OutputReader()
        self._reader = reader
        self._control = control
        self._edge = edge
        self._waits = Waits(reader, edge)
        self._steps = BatchSteps(batch_id, reader, self.record)

    def __repr__(self) -> str:
        return f"<Batch {self.id}>"

    def record(self) -> BatchRecord:
        """Read the batch's record now, consistently; `status` and `request_counts` follow it."""
        self._known = self._reader.record(self.id)
        return self._known

    arecord = async_form(record)

    def progress(self) -> Progress:
        """Return the batch's progress: rate, ETA, failures by code, latency, throughput. In O(1).

        For a batch of any size it takes one round trip and a few kilobytes.
        """
        return self._reader.progress(self.id)

    aprogress = async_form(progress)

    def why_waiting(self) -> str:
        """Return why nothing of the batch runs, and the cure, in a line; empty if something does.

        It is paused; or no worker is alive, none has its chain, or they lack its model or key.
        """
        return why_waiting(self._reader, self.record())

    awhy_waiting = async_form(why_waiting)

    @property
    def status(self) -> BatchStatus:
        """The status that was last read; `record()` reads it now."""
        return self._last().status

    @property
    def request_counts(self) -> RequestCounts:
        """The numbers of items, in total and by status, that were last read."""
        return self._last().request_counts

    def _last(self) -> BatchRecord:
        # Nothing is known if Redis could not be reached just after it had accepted the batch.
        return self._known or self.record()

    def _is_now(self, status: BatchStatus) -> BatchStatus:
        if self._known is not None:
            self._known = self._known.model_copy(update={"status": status})
        return status

    def wait(self, timeout: float | None = None, *, raise_if_paused: bool = False) -> BatchRecord:
        """Wait until the batch has ended; never raises for a failed item.

        What keeps it from going on is logged as a warning, each reason once: the workers have
        paused it, no worker is alive, or none has its chain.

        Raises:
            BatchPaused: with `raise_if_paused`, if the workers have paused it; `record().reason`.
            TimeoutError: it has not ended within `timeout` seconds. It goes on all the same.
            TypeError, ValueError: `timeout` is neither None nor a number of at least 0.
        """
        return self._waits.result(self._steps.until_ended(timeout, raise_if_paused))

    def __await__(self) -> Generator[Any, None, BatchRecord]:
        """Wait for the end: `record = await batch`."""
        return self.await_().__await__()

    async def await_(
        self, timeout: float | None = None, *, raise_if_paused: bool = False
    ) -> BatchRecord:
        """As `wait`; holds no thread, and can be cancelled."""
        return await self._waits.aresult(self._steps.until_ended(timeout, raise_if_paused))

    def pause(self) -> BatchStatus:
        """Let no new item start until `resume`; running items may end. Returns the new status."""
        return self._is_now(self._control.pause(self.id))

    apause = async_form(pause)

    def resume(self, *, budget: Budget | None = None) -> BatchStatus:
        """Let a paused batch go on. Returns the new status.

        `budget` replaces the batch's budget, also while it runs.

        Raises:
            ResumeRefused: it has used up its budget, and would pause again at once.
            SubmitRefused: `budget` is invalid.
        """
        return self._is_now(self._control.resume(self.id, budget))

    aresume = async_form(resume)

    def cancel(self) -> BatchStatus:
        """Cancel the batch. Returns the new status: `cancelling`, or `cancelled`.

        No new item starts. Running items are cancelled within seconds: an item's async code sees
        `CancelledError`, a sync step's output is dropped. Items without an outcome become
        `cancelled`, all others keep theirs. An ended batch stays as it is.
        """
        return self._is_now(self._control.cancel(self.id))

    acancel = async_form(cancel)

    def retry_failed(self, codes: Collection[str] | None = None) -> int:
        """Run failed items again, in place: same batch, same order. Returns their number.

        `codes`: only items whose error has one of these codes (an empty collection: no item); None:
        all. The batch goes on until each item has an outcome again; `history` has the earlier ones.

        Raises:
            RetryRefused: the batch has not completed.
            TypeError: `codes` is neither None nor a collection of codes.
        """
        check_codes(codes)
        retried = self._control.retry_failed(self.id, codes)
        self.record()
        return retried

    aretry_failed = async_form(retry_failed)

    def history(self, index: int) -> list[Item]:
        """Return the outcomes of an item that retries have replaced, the oldest first.

        Raises:
            TypeError, ValueError: `index` is not an int of at least 0.
            IndexError: the batch has no such item.
        """
        return self._reader.history(self.id, index)

    ahistory = async_form(history)

    def results(self, *, raise_if_paused: bool = False) -> Stream[Item[Out]]:
        """Iterate over all items in input order, each once it and all items before it have ended.

        Also while the batch runs; reads pages, so that memory stays flat. Works with `for` and
        `async for`. While the batch is paused, it waits.

        Raises:
            BatchPaused: with `raise_if_paused`, if the workers have paused it; `record().reason`.
        """
        return self._items(lambda: self._steps.in_order(raise_if_paused))

    def as_completed(self, *, raise_if_paused: bool = False) -> Stream[Item[Out]]:
        """Iterate over all items in the order in which they end, while the batch runs.

        Else as `results`.
        """
        return self._items(lambda: self._steps.as_completed(raise_if_paused))

    def events(self) -> Stream[BatchEvent]:
        """Iterate over the batch's events until it ends: statuses, and counts.

        The first events give its current state; the last event is its end. Counts come at most five
        times a second, however fast items end; a slower reader gets fewer of them. Works with `for`
        and `async for`.
        """
        return Stream(self._waits, self._steps.events)

    def items(self, start: int = 0, stop: int | None = None) -> Stream[Item[Out]]:
        """Iterate over the items `start` to `stop` in input order as they are now; never waits.

        As a slice without negative places: a `stop` behind the last item is the last item.

        Raises:
            TypeError, ValueError: `start` or `stop` is not an int of at least 0.
        """
        check_int("start", start, 0)
        if stop is not None:
            check_int("stop", stop, 0)
        return self._items(lambda: self._steps.as_they_stand(start, stop))

    @overload
    def outputs(self, *, return_exceptions: Literal[False] = False) -> list[Out]: ...
    @overload
    def outputs(self, *, return_exceptions: bool) -> list[Any]: ...
    def outputs(self, *, return_exceptions: bool = False) -> list[Any]:
        """Wait, and return the plain outputs in input order, as LangChain's `batch` does.

        With `return_exceptions`, an `ItemNotSucceeded` takes the place of a missing output, and an
        `OutputMismatch` that of an output of another type.

        Raises:
            ItemNotSucceeded: the first item, in input order, that has no output.
            OutputMismatch: its output is not of the batch's `output_type`.
        """
        return [self._output(item, return_exceptions) for item in self._recorded()]

    @overload
    async def aoutputs(self, *, return_exceptions: Literal[False] = False) -> list[Out]: ...
    @overload
    async def aoutputs(self, *, return_exceptions: bool) -> list[Any]: ...
    async def aoutputs(self, *, return_exceptions: bool = False) -> list[Any]:
        """As `outputs`."""
        return [self._output(item, return_exceptions) async for item in self._recorded()]

    def export(self, path: str | Path, *, output: Format | None = None) -> Exported:
        """Wait, and write all results, in input order, to a file or a URL (fsspec): all or nothing.

        `output`: "jsonl" is an item a line; "npy" a float32 matrix of vectors: row i is item i's
        output, or NaN without an output. "csv", "tsv", "json" (an array), "rows" (an object a
        line), "parquet" and "arrow" are tables as `to_arrow` has them. None: what the file's name
        says, else "jsonl". Memory stays flat.

        Raises:
            NotVectors: the outputs do not form a matrix.
            BadTable, NotWritten: a package is missing; the upload failed.
        """
        file = destination(path)
        output = output or format_of_name(file.name)
        if output not in get_args(Format):
            raise ValueError(f"output is one of {', '.join(get_args(Format))}, not {output!r}")
        if output == "npy":
            return write_matrix(file, self._recorded(), self.record().request_counts.total)
        if output == "jsonl":
            return write_lines(file, self._recorded())
        fields = self.output_fields()
        written = write_table(file, lambda: self.pairs(self._recorded()), output, fields)
        return Exported(written.rows, written.missing)

    async def aexport(self, path: str | Path, *, output: Format | None = None) -> Exported:
        """As `export`."""
        await self.await_()  # holds no thread, as writing does
        return await self._edge.call(self.export, path, output=output)

    def _items(self, steps: Callable[[], PagedSteps[Item]]) -> Stream[Item[Out]]:
        typed = partial(self._outputs.item, self.id)
        return Stream(self._waits, steps, typed, html=self._results_html)

    def _recorded(self) -> Stream[Item]:
        """All items in input order, with their outputs as they are recorded."""
        return Stream(self._waits, lambda: self._steps.in_order(False))

    def _output(self, item: Item, return_exceptions: bool) -> Any:
        try:
            if item.status is not ItemStatus.SUCCEEDED:
                raise not_succeeded(self.id, item)
            return self._outputs.item(self.id, item).output
        except (ItemNotSucceeded, OutputMismatch) as error:
            if return_exceptions:
                return error
            raise
