"""The documents that are nearest to a text: the R of RAG."""

import asyncio
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import pydantic

from batchord.chains.composition.as_runnable import coerce
from batchord.chains.composition.runnable import Runnable
from batchord.chains.composition.step import Step
from batchord.chains.config import RunnableConfig
from batchord.chains.errors import ChainError, InvalidInput
from batchord.chains.extras import check_installed, library
from batchord.chains.runtime.checkpoints import digest
from batchord.chains.runtime.concurrency import permit
from batchord.chains.runtime.loop_thread import in_thread

if TYPE_CHECKING:
    # numpy takes a while to import, and a chain without a retriever does not need it.
    from batchord.chains.steps.vector_index import Index, IndexFactory


class Document(pydantic.BaseModel, frozen=True):
    """A text that can be found, and what is known about it."""

    text: str
    metadata: dict[str, Any] = {}

    def __init__(self, text: str, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(text=text, metadata=dict(metadata or {}))


class Retriever(Step[str, list[Document]]):
    """A text in, the `k` nearest of the documents out, nearest first and ties in their order.

    `embed` is a step that takes a text or a list of texts: `Embed()`. The documents are embedded
    once, with the first text; if that fails, the next text tries again. Its usage is counted for
    the item that was first. `index` is "numpy", "faiss", or a function from vectors of shape
    (documents, dimensions) to an `Index`.
    """

    #: Embedding the text and searching hold the permits.
    is_call = False

    def __init__(
        self,
        documents: Iterable[str | Document],
        embed: Any,
        k: int = 4,
        *,
        index: "Literal['numpy', 'faiss'] | IndexFactory" = "numpy",
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.documents = tuple(Document(one) if isinstance(one, str) else one for one in documents)
        if not self.documents:
            raise ValueError("a retriever needs at least one document")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        check_installed("numpy", "a Retriever")
        if isinstance(index, str) and index not in ("numpy", "faiss"):
            raise ValueError(f"index must be 'numpy', 'faiss' or a function, not {index!r}")
        self._embed = coerce(embed)
        self._k = k
        self._factory = index
        self._index: Index | None = None
        # A lock of asyncio belongs to one loop. Two loops may both embed: wasteful, never wrong.
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )
        self._locks_lock = threading.Lock()

    async def _run(self, input: str, config: RunnableConfig, **options: Any) -> list[Document]:
        if not isinstance(input, str):
            raise InvalidInput(f"{self.name} takes a text, not {type(input).__name__}")
        index = await self._ready()
        np = library("numpy", self.name)
        vector = np.asarray(await self._embed.ainvoke(input), dtype=np.float32)
        async with permit():
            found = await in_thread(index.search, vector, self._k)
        return [self.documents[position] for position in found]

    def fingerprint(self) -> Any:
        factory = self._factory if isinstance(self._factory, str) else None
        return ["retriever", self._k, factory, digest(self.documents), self._embed.fingerprint()]

    def children(self) -> Iterable[Runnable[Any, Any]]:
        return [self._embed]

    async def _ready(self) -> "Index":
        if self._index is not None:
            return self._index
        with self._locks_lock:
            lock = self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with lock:
            if self._index is None:
                vectors = await self._embed.ainvoke([one.text for one in self.documents])
                if len(vectors) != len(self.documents):
                    raise ChainError(
                        f"{self._embed.name} gave {len(vectors)} vectors for "
                        f"{len(self.documents)} documents",
                        code="invalid_output",
                    )
                self._index = await in_thread(self._build, vectors)
            return self._index

    def _build(self, vectors: Any) -> "Index":
        np = library("numpy", self.name)
        from batchord.chains.steps.vector_index import FACTORIES

        factory = FACTORIES[self._factory] if isinstance(self._factory, str) else self._factory
        return factory(np.asarray(vectors, dtype=np.float32))
