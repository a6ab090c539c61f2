"""The rate at which items end in this process."""

import math
import time
from collections.abc import Callable


class Throughput:
    """Items per second, over about the last half second."""

    #: Seconds after which what happened counts for a third.
    MEMORY = 0.5

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate = 0.0
        self._at = clock()

    @property
    def per_second(self) -> float:
        """The rate now; it falls while nothing ends."""
        return self._rate * math.exp((self._at - self._clock()) / self.MEMORY)

    def ended(self, count: int) -> None:
        """Count items that have ended just now."""
        self._rate = self.per_second + count / self.MEMORY
        self._at = self._clock()
