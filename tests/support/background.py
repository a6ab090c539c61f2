"""Something that happens in a thread for as long as a `with` lasts."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Background(ABC):
    """Calls `look` again and again, this many seconds apart, until the `with` is left."""

    #: Seconds between two calls.
    interval = 0.05

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=type(self).__name__.lower(), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.left()

    @abstractmethod
    def look(self) -> None:
        """Do it once."""

    def left(self) -> None:  # noqa: B027
        """Clean up, once nothing is called any more."""

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            self.look()
