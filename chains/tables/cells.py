"""Cells of tables as JSON values."""

import sys
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_jsonable_python

#: Types that become text, as pydantic writes them: ISO 8601, and a Decimal's digits.
_AS_TEXT: Final = (date, time, timedelta, Decimal, UUID)


def json_cell(value: Any) -> Any:
    """Return the JSON value of a cell; what has none (bytes, say) is returned as it is.

    None, NaN, NaT and pd.NA are None. numpy's scalars and arrays are numbers and lists.
    """
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, (list, tuple)):
        return [json_cell(each) for each in value]
    if isinstance(value, dict):
        return {key: json_cell(each) for key, each in value.items()}
    if isinstance(value, _AS_TEXT):
        # NaT calls itself a datetime, and is not equal to itself.
        return to_jsonable_python(value) if value == value else None
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return json_cell(value.tolist()) if not isinstance(value, numpy.bytes_) else value
    pandas = sys.modules.get("pandas")
    return None if pandas is not None and value is pandas.NA else value
