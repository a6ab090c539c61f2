"""The completion window of a batch, in its public forms."""

import re
from datetime import timedelta
from typing import Any, Final

from batchord.ledger.errors import SubmitRefused

#: "24h" (OpenAI's form), a timedelta, or seconds.
Window = str | timedelta | float

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST: Final = 366 * 86_400


def window_seconds(window: Window | None, name: str = "completion_window") -> float | None:
    """Return the completion window in seconds, or None. `name`: how an error calls it.

    Raises:
        SubmitRefused: it is invalid, or not between a second and a year.
    """
    seconds: Any = window
    if window is None:
        return None
    if isinstance(window, timedelta):
        seconds = window.total_seconds()
    elif isinstance(window, str):
        found = re.fullmatch(r"([0-9]{1,9})([smhd])", window)
        seconds = int(found[1]) * _UNITS[found[2]] if found else None
    if type(seconds) not in (int, float) or not 1 <= seconds <= _LONGEST:
        raise SubmitRefused(
            f'{name}: "24h" (or s, m, d), a timedelta, or seconds, from 1 s to a year'
        )
    return float(seconds)
