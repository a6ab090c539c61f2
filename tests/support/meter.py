"""A step that tests look into."""

import asyncio
from typing import Any


class Meter:
    """A step that counts how many of its calls run at once; each takes this many seconds."""

    def __init__(self, seconds: float = 0.005) -> None:
        self._seconds = seconds
        self.now = 0
        self.peak = 0
        self.calls = 0
        self.cancelled = 0

    async def __call__(self, value: Any) -> Any:
        self.calls += 1
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1
        return value
