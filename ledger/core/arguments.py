"""Checks of the arguments of public calls: a clear error before anything is asked or written."""

import math
from collections.abc import Collection
from datetime import datetime
from typing import Any


def check_int(name: str, value: Any, least: int) -> None:
    """Raise unless the value is an int, and not a bool, of at least `least`.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    if type(value) is not int:
        raise TypeError(f"{name}: an int of at least {least}, not a {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: an int of at least {least}, not {value}")


def check_timeout(value: Any) -> None:
    """Raise unless the value is a number of seconds of at least 0, or None.

    Raises:
        TypeError, ValueError: it is not.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"timeout: seconds of at least 0, or None, not a {type(value).__name__}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"timeout: seconds of at least 0, or None, not {value:g}")


def check_codes(value: Any) -> None:
    """Raise unless the value is a collection of error codes, or None for all.

    Raises:
        TypeError: it is not; a str is one code, and no collection of them.
    """
    if value is None:
        return
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        raise TypeError(f'codes: a list of codes, as ["timeout"], not a {type(value).__name__}')
    for code in value:
        if not isinstance(code, str):
            raise TypeError(f"codes: each is a str, not a {type(code).__name__}")


def check_time(name: str, value: Any) -> None:
    """Raise unless the value is a datetime that has a time zone.

    Raises:
        TypeError, ValueError: it is not.
    """
    if not isinstance(value, datetime):
        raise TypeError(f"{name}: a datetime with a time zone, not a {type(value).__name__}")
    if value.tzinfo is None:
        raise ValueError(f"{name}: a datetime with a time zone, as datetime.now(UTC); it has none")
