"""Items as a stream that both `for` and `async for` read, page by page."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Stream(Generic[T]):
    """Iterable from sync and async code; every iteration begins anew.

    In async code the waiting happens in a thread, once a page and not once an item.
    """

    def __init__(self, pages: Callable[[], Iterator[list[T]]]) -> None:
        self._pages = pages

    def __iter__(self) -> Iterator[T]:
        for page in self._pages():
            yield from page

    async def __aiter__(self) -> AsyncIterator[T]:
        pages = self._pages()
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            for item in page:
                yield item
