"""Results as files: JSON lines, or one matrix. A file appears whole or not at all.

Rows are written as their page is read, so that memory stays flat however many there are.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from batchord.chains.errors import BatchordError
from batchord.chains.extras import library
from batchord.chains.tables.extra import BadTable
from batchord.ledger.models import Item, ItemStatus
from batchord.producer.tables.atomic_file import packed, replacing
from batchord.producer.tables.file_kinds import COMPRESSIONS, FOREIGN, kind_of
from batchord.producer.tables.remote_file import Destination

if TYPE_CHECKING:
    # Imported on first use: most exports need none of it.
    import numpy as np

Format = Literal["jsonl", "npy", "csv", "tsv", "json", "rows", "parquet", "arrow"]

#: Formats that are tables.
TABLES: Final = ("csv", "tsv", "json", "rows", "parquet", "arrow")

#: 32 bits, little-endian: what most vector stores keep.
_DTYPE: Final = "<f4"


class NotVectors(BatchordError):
    """The outputs make no matrix: export them as JSON lines."""


class Exported(NamedTuple):
    """The result of an export."""

    #: Lines of JSON, or rows of the matrix.
    items: int
    #: Those among them that have no output: in a matrix, rows of NaN.
    missing: int


def format_of_name(name: str) -> Format:
    """Return the format that a file's name says; JSON lines of results if it says none.

    Raises:
        BadTable: it says one that is not written here.
    """
    if (suffix := PurePosixPath(name.lower()).suffix) in FOREIGN:
        raise BadTable(
            f"no results are written as {suffix}: name a file that ends in .csv, .parquet or "
            ".jsonl, perhaps with .gz behind it"
        )
    if name.endswith((".npy", *(f".npy{suffix}" for suffix in COMPRESSIONS))):
        return "npy"
    format_: Any = kind_of(name).format
    return cast(Format, format_) if format_ in TABLES else "jsonl"


def line(item: Item) -> str:
    """Return one result as a JSON line."""
    return item.model_dump_json(exclude_none=False) + "\n"


def write_lines(path: Destination, items: Iterable[Item]) -> Exported:
    """Write the items as JSON lines, all or nothing; compressed if the file's name says so."""
    count = missing = 0
    with packed(path) as file:
        for item in items:
            file.write(line(item).encode())
            count += 1
            missing += item.status is not ItemStatus.SUCCEEDED
    return Exported(count, missing)


def write_matrix(path: Destination, items: Iterable[Item], rows: int) -> Exported:
    """Write the outputs as a float32 matrix in NumPy's format, all or nothing.

    Row i is item i, always: one without an output is a row of NaN. `rows` is how many items there
    are.

    Raises:
        NotVectors: an output is no list of numbers, or not as long as the one before; there is
            none at all.
    """
    np = library("numpy", "a matrix")
    columns = missing = 0
    with replacing(path) as file:
        for item in items:
            if item.status is not ItemStatus.SUCCEEDED:
                missing += 1
                if columns:
                    file.write(np.full(columns, np.nan, _DTYPE).tobytes())
                continue
            row = _row(item)
            if not columns:
                # Only now is it known how wide the rows of those before are, which have none.
                columns = len(row)
                _begin(file, rows, columns)
                for _ in range(missing):
                    file.write(np.full(columns, np.nan, _DTYPE).tobytes())
            if len(row) != columns:
                raise NotVectors(
                    f"no matrix: the output of item {item.index} has {len(row)} numbers, those "
                    f"before it {columns}"
                )
            file.write(row.tobytes())
        if not columns:
            raise NotVectors("no matrix: no item has an output, so that its width is unknown")
    return Exported(rows, missing)


def _begin(file: IO[bytes], rows: int, columns: int) -> None:
    from numpy.lib import format as npy

    npy.write_array_header_1_0(
        file, {"descr": _DTYPE, "fortran_order": False, "shape": (rows, columns)}
    )


def _row(item: Item) -> "np.ndarray[Any, np.dtype[np.float32]]":
    import numpy as np

    output = item.output
    if not isinstance(output, list) or not output or not all(map(_is_number, output)):
        raise NotVectors(f"no matrix: the output of item {item.index} is not a list of numbers")
    try:
        with np.errstate(over="raise"):
            return np.array(output, np.float64).astype(_DTYPE)
    except (FloatingPointError, OverflowError):
        raise NotVectors(
            f"no matrix: the output of item {item.index} has a number beyond 32 bits"
        ) from None


def _is_number(value: object) -> bool:
    return type(value) is float or type(value) is int
