"""Waiting for something to become true: tests never sleep for a guessed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, *, timeout: float = 20.0) -> T:
    """Return the first true value of `condition`, asked every 20 ms.

    Raises:
        AssertionError: `what` did not happen within `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)
