"""Tables of a batch's results: its inputs, the fields of its outputs, and what became of each."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from batchord.chains import registered
from batchord.chains.specs.chain_spec import is_spec, registered_spec
from batchord.chains.tables.extra import library
from batchord.ledger.models import BatchRecord, Item
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.keys import page_of
from batchord.producer.async_edge import AsyncEdge, async_form
from batchord.producer.page_stream import Stream
from batchord.producer.tables.kinds import Kind, schema_fields
from batchord.producer.tables.layout import Pair
from batchord.producer.tables.table_file import arrow_table

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class BatchTables:
    """The part of a `Batch` that gives its results as tables.

    A row is an item, in input order: the columns of its input (or `input`), the fields of its
    output (or `output`), `status`, `error_code`, `error` and `cost_usd`, and first `custom_id`
    where no column of the input has it. A name that the input has already gets the ending
    `_output`. Values without a type in common are JSON text. The whole table is in memory; files
    are written without (`export`).
    """

    id: str
    _reader: BatchReader
    _edge: AsyncEdge

    if TYPE_CHECKING:

        def _recorded(self) -> Stream[Item]: ...
        def record(self) -> BatchRecord: ...
        async def await_(self, timeout: float | None = None) -> BatchRecord: ...

    def to_arrow(self) -> "pyarrow.Table":
        """Wait, and return the results as a table of pyarrow.

        Raises:
            BadTable: pyarrow is missing.
        """
        return arrow_table(lambda: self.pairs(self._recorded()), self.output_fields())

    async def ato_arrow(self) -> "pyarrow.Table":
        """As `to_arrow`."""
        await self.await_()
        return await self._edge.call(self.to_arrow)

    def to_pandas(self) -> "pandas.DataFrame":
        """Wait, and return the results as a data frame of pandas; its integers may be missing.

        Raises:
            BadTable: pyarrow or pandas is missing.
        """
        pandas = library("pandas", "to_pandas")
        table = self.to_arrow()
        pa = library("pyarrow", "to_pandas")
        kinds = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}
        return table.to_pandas(types_mapper=kinds.get)

    async def ato_pandas(self) -> "pandas.DataFrame":
        """As `to_pandas`."""
        await self.await_()
        return await self._edge.call(self.to_pandas)

    def to_polars(self) -> "polars.DataFrame":
        """Wait, and return the results as a data frame of polars.

        Raises:
            BadTable: pyarrow or polars is missing.
        """
        frame: Any = library("polars", "to_polars").from_arrow(self.to_arrow())
        return cast("polars.DataFrame", frame)

    async def ato_polars(self) -> "polars.DataFrame":
        """As `to_polars`."""
        await self.await_()
        return await self._edge.call(self.to_polars)

    def pairs(self, items: Iterable[Item]) -> Iterator[Pair]:
        """Yield each of these items, which are in input order, behind its input."""
        for _, some in groupby(items, lambda item: page_of(item.index)):
            page = list(some)
            inputs = self._reader.inputs(self.id, [item.index for item in page])
            yield from zip(inputs, page, strict=True)

    def output_fields(self) -> dict[str, Kind] | None:
        """Return the fields of the chain's outputs as its schema says; None: it does not."""
        name = self.record().chain
        if is_spec(name):
            spec = registered_spec(name, self._reader.spec(self.id) or "").source
            return schema_fields(spec.output_schema)
        here = registered().get(name)
        if here is not None:
            return schema_fields(here.output_schema)
        announced = self._reader.chain(name)
        return None if announced is None else schema_fields(announced.output_schema)

    aoutput_fields = async_form(output_fields)
