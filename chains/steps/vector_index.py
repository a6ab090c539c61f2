"""Nearest vectors by cosine: in numpy, or in FAISS where that is installed."""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: Decimals of a score that count: equal vectors must tie, however the sums were ordered.
SCORE_DECIMALS = 6


class Index(Protocol):
    """Vectors that can be searched; positions are those of the rows it was made from."""

    def search(self, vector: Floats, k: int) -> list[int]:
        """Return the positions of up to `k` nearest rows, nearest first, ties by position."""
        ...


#: Makes an index from vectors of shape (rows, dimensions).
IndexFactory = Callable[[Floats], Index]


class NumpyIndex:
    """Compares with every row: exact, and fast up to some 100,000 rows."""

    def __init__(self, vectors: Floats) -> None:
        self._rows = unit_rows(vectors)

    def search(self, vector: Floats, k: int) -> list[int]:
        scores = self._rows @ unit_rows(vector[None, :])[0]
        return [int(i) for i in np.argsort(-scores.round(SCORE_DECIMALS), kind="stable")[:k]]


class FaissIndex:
    """FAISS's exact inner product index over unit vectors; needs the extra `faiss`.

    Ties are ordered by position among the rows found; which of equal rows are found when there are
    more than `k` of them is up to FAISS.
    """

    def __init__(self, vectors: Floats) -> None:
        try:
            faiss: Any = importlib.import_module("faiss")
        except ImportError:
            raise ImportError(
                "index='faiss' needs FAISS: pip install 'batchord[faiss]', or use index='numpy'"
            ) from None
        rows = unit_rows(vectors)
        self._index = faiss.IndexFlatIP(rows.shape[1])
        self._index.add(rows)
        self._count = rows.shape[0]

    def search(self, vector: Floats, k: int) -> list[int]:
        scores, found = self._index.search(unit_rows(vector[None, :]), min(k, self._count))
        rounded = np.asarray(scores[0]).round(SCORE_DECIMALS)
        pairs = zip(rounded.tolist(), found[0].tolist(), strict=True)
        return [position for _, position in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))]


FACTORIES: dict[str, IndexFactory] = {"numpy": NumpyIndex, "faiss": FaissIndex}


def unit_rows(vectors: Floats) -> Floats:
    """Rows of length 1, so that an inner product is a cosine; a row of zeros stays as it is."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths == 0, 1, lengths)).astype(np.float32)
