"""The documents that are nearest to a text."""

import asyncio
import importlib.util
from typing import Any

import numpy as np
import pytest

from batchord.chains import (
    ChainError,
    Chat,
    Document,
    Embed,
    InvalidInput,
    Lambda,
    Prompt,
    Retriever,
)
from batchord.chains.steps.vector_index import FaissIndex, Floats, NumpyIndex
from tests.support.openai_server import OpenAIServer

DOCS = [
    "Vector memory stores embeddings for semantic search.",
    "LCEL composes chains with the pipe operator.",
    "RAG combines retrieval with language models.",
]
INDEXES = [
    "numpy",
    pytest.param(
        "faiss",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("faiss") is None, reason="the extra `faiss` is not installed"
        ),
    ),
]


def letters(value: Any) -> Any:
    """An embedding without a provider: how often each letter occurs."""
    if isinstance(value, str):
        return [float(value.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return [letters(text) for text in value]


@pytest.mark.parametrize("index", INDEXES)
def test_the_nearest_documents_come_first(server: OpenAIServer, index: Any) -> None:
    retriever = Retriever(DOCS, Embed(), k=2, index=index)
    found = retriever.invoke("What does the pipe operator compose?")
    assert found[0] == Document(DOCS[1])
    assert len(found) == 2


def test_documents_are_embedded_once_however_many_texts_ask(server: OpenAIServer) -> None:
    retriever = Retriever(DOCS, Embed(), k=1)
    retriever.batch(["retrieval", "pipe", "semantic search"])
    retriever.invoke("retrieval")
    inputs = [request.body["input"] for request in server.requests]
    assert inputs.count(DOCS) == 1
    assert len(inputs) <= 3


def test_a_failure_to_embed_the_documents_is_not_kept(server: OpenAIServer) -> None:
    retriever = Retriever(DOCS, Embed(retry=None), k=1)
    server.fail_next(503, n=4)  # the documents, each half of them, and the probe
    with pytest.raises(ChainError) as raised:
        retriever.invoke("pipe")
    assert raised.value.step == "Retriever"
    assert retriever.invoke("pipe operator") == [Document(DOCS[1])]


def test_rag_reads_as_in_the_chapter(server: OpenAIServer) -> None:
    chain = (
        {"context": Retriever(DOCS, Embed(), k=1), "question": lambda x: x}
        | Prompt("Context: {context}\nQuestion: {question}")
        | Chat()
    )
    questions = ["the pipe operator?", "semantic search?"]
    assert chain.batch(questions) == [
        f"echo: Context: {DOCS[1]}\nQuestion: {questions[0]}",
        f"echo: Context: {DOCS[0]}\nQuestion: {questions[1]}",
    ]


def test_any_step_from_texts_to_vectors_will_do() -> None:
    retriever = Retriever(["zzz", Document("aaa", {"page": 1})], letters, k=5)
    assert retriever.invoke("a") == [Document("aaa", {"page": 1}), Document("zzz")]


def test_one_retriever_serves_many_loops() -> None:
    retriever = Retriever(["zzz", "aaa"], letters, k=1)

    async def main() -> list[list[Document]]:
        return await retriever.abatch(["a", "z"])

    assert asyncio.run(main()) == asyncio.run(main()) == retriever.batch(["a", "z"])


def test_documents_tell_what_they_know_as_json() -> None:
    document = Document("text", {"source": "a.md"})
    assert document.model_dump(mode="json") == {"text": "text", "metadata": {"source": "a.md"}}
    assert Document.model_validate(document.model_dump()) == document


def test_an_index_may_be_made_by_a_function() -> None:
    class Last:
        def __init__(self, vectors: Floats) -> None:
            self.rows = len(vectors)

        def search(self, vector: Floats, k: int) -> list[int]:
            return [self.rows - 1]

    assert Retriever(["a", "b"], letters, index=Last).invoke("a") == [Document("b")]


@pytest.mark.parametrize("index", INDEXES)
def test_ties_keep_the_order_of_the_rows(index: str) -> None:
    row = np.random.default_rng(1).standard_normal(33)
    rows = np.asarray([row * scale for scale in (1.0, 0.1, 7.0, 3.3, 1e-3)], dtype=np.float32)
    made = NumpyIndex(rows) if index == "numpy" else FaissIndex(rows)
    assert made.search(rows[3], 5) == [0, 1, 2, 3, 4]
    assert made.search(rows[3], 99) == [0, 1, 2, 3, 4]


def test_a_vector_of_zeros_is_near_to_nothing() -> None:
    index = NumpyIndex(np.asarray([[0.0, 0.0], [1.0, 0.0]], dtype=np.float32))
    assert index.search(np.asarray([1.0, 0.0], dtype=np.float32), 2) == [1, 0]
    assert index.search(np.asarray([0.0, 0.0], dtype=np.float32), 2) == [0, 1]


@pytest.mark.skipif(importlib.util.find_spec("faiss") is not None, reason="FAISS is installed")
def test_without_faiss_its_index_says_how_to_get_it() -> None:
    with pytest.raises(ImportError, match=r"batchord\[faiss\]"):
        Retriever(["a"], letters, index="faiss").invoke("a")


@pytest.mark.parametrize(
    "wrong", [{"documents": []}, {"k": 0}, {"index": "annoy"}, {"embed": None}]
)
def test_what_cannot_work_is_refused_when_it_is_built(wrong: dict[str, Any]) -> None:
    given = {"documents": ["a"], "embed": letters, **wrong}
    with pytest.raises((ValueError, TypeError)):
        Retriever(**given)


def test_only_a_text_can_be_looked_up() -> None:
    with pytest.raises(InvalidInput, match="Retriever takes a text, not dict"):
        Retriever(["a"], letters).invoke({"q": "a"})  # type: ignore[arg-type]  # on purpose


def test_vectors_that_are_missing_are_noticed() -> None:
    short = Lambda(lambda texts: [[1.0]])
    with pytest.raises(ChainError, match="gave 1 vectors for 2 documents"):
        Retriever(["a", "b"], short).invoke("a")
