"""Items as a stream that both `for` and `async for` read, page by page."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

from batchord.producer.wait_steps import PagedSteps, Waits

T = TypeVar("T")


class Stream(Generic[T]):
    """Iterable from sync and async code; every iteration begins anew.

    In async code waiting holds no thread, and ends when the task that waits is cancelled.
    """

    def __init__(
        self,
        waits: Waits,
        steps: Callable[[], PagedSteps[Any]],
        convert: Callable[[Any], T] | None = None,
        html: Callable[[], str] | None = None,
    ) -> None:
        """`convert`: makes of each thing in a page what is yielded; None: the thing itself.

        `html`: what a notebook shows of it; None: its name.
        """
        self._waits = waits
        self._steps = steps
        self._convert = convert or _itself
        self._html = html

    def _repr_html_(self) -> str | None:
        return None if self._html is None else self._html()

    def __iter__(self) -> Iterator[T]:
        for page in self._waits.pages(self._steps()):
            yield from map(self._convert, page)

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self._waits.apages(self._steps()):
            for item in page:
                yield self._convert(item)


def _itself(value: Any) -> Any:
    return value
