"""Rows of Arrow record batches as dicts of JSON values.

Typed as `Any`: pyarrow has no types of its own, and is imported on first use.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from batchord.chains.tables.cells import json_cell
from batchord.chains.tables.extra import BadTable, library


def rows(schema: Any, batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield each row of the record batches as a dict of its columns.

    A missing value and a float that is not a number (NaN) are None. Dates and times are text in
    ISO 8601, to microseconds; decimals are text.

    Raises:
        BadTable: two columns have the same name.
    """
    names = list(schema.names)
    check_names(names)
    for batch in batches:
        columns = [column_values(column) for column in batch.columns]
        for cells in zip(*columns, strict=True) if columns else ():
            yield dict(zip(names, cells, strict=True))


def check_names(names: list[Any]) -> None:
    """Raise BadTable if two columns have the same name, or a name is not a text."""
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise BadTable(
                f"the column {name!r} has no text for a name: rename it, as in "
                "frame.rename(columns=str)"
            )
        if name in seen:
            raise BadTable(f"two columns are called {name!r}: rename one of them")
        seen.add(name)


def column_values(column: Any) -> list[Any]:
    """Return the values of an Arrow array, or of the chunks of one."""
    pa = library("pyarrow", "an Arrow table")
    kind = _in_microseconds(pa, column.type)
    if kind != column.type:
        # Python's times end at microseconds.
        column = column.cast(kind, safe=False)
    values: list[Any] = column.to_pylist()
    return values if _is_plain(pa, kind) else [json_cell(value) for value in values]


def _in_microseconds(pa: Any, kind: Any) -> Any:
    types = pa.types
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    return kind


def _is_plain(pa: Any, kind: Any) -> bool:
    """Whether the values of this type are JSON values as they are."""
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_integer(kind)
        or types.is_boolean(kind)
    )
