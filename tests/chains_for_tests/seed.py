"""The cases of the chapter on batch execution, as chains of ours and as LangChain's (`-lc`).

What talks to a provider reads OPENAI_* when it is called, and not when it is imported.
"""

import os
from functools import cache
from typing import Any

from langchain_core.documents import Document as LangChainDocument
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable as LangChainRunnable
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from batchord.chains import Chat, Embed, Lambda, Parallel, Prompt, Retriever, register

DOCUMENTS = [
    "RAG (Retrieval Augmented Generation) combines retrieval with LLMs to answer questions using "
    "external knowledge.",
    "Vector memory stores embeddings of documents for semantic search and retrieval.",
    "LCEL (LangChain Expression Language) is a declarative way to compose chains using the pipe "
    "operator.",
]
RAG_PROMPT = "Answer the question using the context:\n\nContext: {context}\n\nQuestion: {question}"
EMBEDDING_MODEL = "text-embedding-3-small"


def count_words(text: str) -> int:
    return len(text.split())


def only_short(text: str) -> str:
    """Fails for some inputs, to be seen in place with `return_exceptions`."""
    if len(text) > 12:
        raise ValueError(f"too long: {len(text)}")
    return text


def _chat() -> ChatOpenAI:
    return ChatOpenAI(model_name=os.environ["OPENAI_MODEL"], max_retries=0)


@cache
def _retriever(base_url: str) -> LangChainRunnable[str, list[LangChainDocument]]:
    # Checking the context's length would download tiktoken's tables.
    embeddings = OpenAIEmbeddings(
        model=EMBEDDING_MODEL, openai_api_base=base_url, check_embedding_ctx_length=False
    )
    store = InMemoryVectorStore(embeddings)
    store.add_documents([LangChainDocument(page_content=text) for text in DOCUMENTS])
    return store.as_retriever(search_kwargs={"k": 2})


def _joined(found: list[LangChainDocument]) -> str:
    return "\n\n".join(document.page_content for document in found)


# A RunnableLambda that returns a Runnable runs it: so both are made when they are called.
_lc_llm = RunnableLambda[Any, Any](lambda _: _chat()) | StrOutputParser()
_lc_retriever = RunnableLambda[Any, Any](lambda _: _retriever(os.environ["OPENAI_BASE_URL"]))

#: By name: our chain, and LangChain's.
CHAINS: dict[str, tuple[Any, LangChainRunnable[Any, Any]]] = {
    "seed-upper": (Lambda(lambda x: x.upper()), RunnableLambda(lambda x: x.upper())),
    "seed-clean": (
        Lambda(lambda x: x.strip()) | Lambda(lambda x: x.lower()),
        RunnableLambda(lambda x: x.strip()) | RunnableLambda(lambda x: x.lower()),
    ),
    "seed-llm": (Chat(), _lc_llm),
    "seed-rag": (
        {
            "question": Lambda(lambda x: x),
            "context": Retriever(DOCUMENTS, Embed(EMBEDDING_MODEL), k=2),
        }
        | Prompt(RAG_PROMPT)
        | Chat(),
        {"question": RunnableLambda(lambda x: x), "context": _lc_retriever | _joined}
        | ChatPromptTemplate.from_template(RAG_PROMPT)
        | _lc_llm,
    ),
    "seed-parallel": (
        Parallel(length=Lambda(lambda x: len(x)), words=count_words),
        RunnableParallel(
            length=RunnableLambda(lambda x: len(x)), words=RunnableLambda(count_words)
        ),
    ),
    "seed-short": (
        Lambda(only_short) | Lambda(lambda x: x.upper()),
        RunnableLambda(only_short) | RunnableLambda(lambda x: x.upper()),
    ),
}

#: By name: inputs of the chapter, and what they give where no provider is asked.
CASES: dict[str, tuple[list[str], list[Any] | None]] = {
    "seed-upper": (["rag", "agents", "memory"], ["RAG", "AGENTS", "MEMORY"]),
    "seed-clean": (
        ["  LangChain  ", "  RUNNABLES ", "  BATCH MODE "],
        ["langchain", "runnables", "batch mode"],
    ),
    "seed-llm": (["Explain RAG", "Explain agents", "Explain memory"], None),
    "seed-rag": (["What is RAG?", "What is vector memory?", "What is LCEL?"], None),
    "seed-parallel": (
        ["Runnable batch execution", "Parallel runnables"],
        [{"length": 24, "words": 3}, {"length": 18, "words": 2}],
    ),
}

#: For `seed-short` with `return_exceptions`: every second input fails.
SHORT_INPUTS = ["short", "much too long for it", "brief", "this one is too long as well"]

for _name, (_ours, _langchains) in CHAINS.items():
    register(_name, _ours)
    register(f"{_name}-lc", _langchains)
