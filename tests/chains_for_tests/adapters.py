"""LangChain chains as workers run them: usage, documents, errors, settings (tests/parity)."""

import datetime
import os
from typing import Any, TypedDict

import numpy as np
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableGenerator, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from batchord.chains import Chat, Lambda, Parallel, Prompt, Usage, register, report_usage


def model() -> ChatOpenAI:
    return ChatOpenAI(model_name="test-model", max_retries=0)


def prompt(text: str) -> ChatPromptTemplate:
    return ChatPromptTemplate.from_messages([("human", text)])


class Custom:
    """An object with `invoke` that is no Runnable of LangChain's."""

    def invoke(self, text: str) -> str:
        report_usage(Usage(requests=1, input_tokens=1, output_tokens=1))
        return text


@tool
def double(number: int) -> int:
    """Double a number."""
    return number * 2


def first_text(message: AIMessage) -> str:
    return str(message.content)


def asks_within(text: str) -> str:
    """A function of the user's that calls a model of LangChain's."""
    return str(model().invoke(text).content)


def fails(value: Any) -> Any:
    raise ValueError("no good")


def chunks(stream: Any) -> Any:
    for each in stream:
        yield f"<{each}>"


def values(_: Any) -> dict[str, Any]:
    day = datetime.date(2026, 11, 28)
    return {"scalar": np.int64(1), "array": np.ones(1), "set": {2, 1}, "day": day}


class SyncSaver(InMemorySaver):
    """A checkpointer without async methods, as that for SQLite is."""

    aget_tuple = BaseCheckpointSaver.aget_tuple
    alist = BaseCheckpointSaver.alist
    aput = BaseCheckpointSaver.aput
    aput_writes = BaseCheckpointSaver.aput_writes


class Counted(TypedDict):
    count: int


def counts() -> Any:
    """A graph that goes on counting in its thread."""
    graph = StateGraph(Counted)
    graph.add_node("count", lambda state: {"count": state["count"] + 1})
    graph.add_edge(START, "count")
    graph.add_edge("count", END)
    return graph.compile(checkpointer=SyncSaver())


# The keys are read as a model is made; a process that asks none has no provider to name.
os.environ.setdefault("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
os.environ.setdefault("OPENAI_API_KEY", "none")

#: Each asks a model once.
METERED: dict[str, Any] = {
    "own": Chat("test-model"),
    "model": model() | RunnableLambda(first_text),
    "bound": model().bind(temperature=0) | RunnableLambda(first_text),
    "in a LangChain function": RunnableLambda(asks_within),
    "in a function": Lambda(asks_within),
    "in a branch": RunnableParallel(a=model() | first_text),
    "routed by a function": Lambda(lambda text: Chat("test-model")),
    "fallback": RunnableLambda(fails).with_fallbacks([model() | first_text]),
    "own fallback": Lambda(fails).with_fallbacks([model() | first_text]),
}

#: Chain, input, and the code and step of its error.
FAILING: dict[str, tuple[Any, Any, str, str]] = {
    "tool": (double, {"number": "x"}, "invalid_input", "double"),
    "tool in a chain": (RunnableLambda(dict) | double, {"number": "x"}, "invalid_input", "double"),
    "inner step": (RunnableLambda(len) | RunnableLambda(fails), "a", "ValueError", "fails"),
    "branch": (
        RunnableLambda(len) | RunnableParallel(good=str, bad=RunnableLambda(fails)),
        "a",
        "ValueError",
        "bad.fails",
    ),
    "branches of both": (
        Parallel(ours=RunnableLambda(str) | RunnableParallel(theirs=RunnableLambda(fails))),
        "a",
        "ValueError",
        "ours.theirs.fails",
    ),
    "single": (RunnableLambda(fails), "a", "ValueError", "fails"),
}

#: Chain, and a part of what is said if it is to have a cache.
CACHED: dict[str, tuple[Any, str | None]] = {
    "own": (Chat("test-model"), None),
    "serializable": (prompt("{text}") | model(), None),
    "function": (RunnableLambda(str.upper), "cannot serialize the RunnableLambda"),
    "fake": (prompt("{text}") | FakeListChatModel(responses=["a"]), "the FakeListChatModel"),
    "custom": (Custom(), "Custom, whose settings are unknown"),
    "own branch": (Parallel(a=Custom()), "Custom, whose settings are unknown"),
    "retried": (Lambda(str).with_fallbacks([Custom()]), "Custom, whose settings are unknown"),
}

#: Prompts and models that must not share a cache entry.
DIFFERENT: list[Any] = [
    prompt("A {text}") | model(),
    prompt("B {text}") | model(),
    prompt("A {text}") | model().bind(temperature=1),
    prompt("A {text}") | ChatOpenAI(model_name="other"),
    prompt("A {text}") | model().bind(stop=["x"]),
    prompt("A {text}") | model().with_config(configurable={"model": "x"}),
]


def named(kind: str, name: str) -> str:
    return f"{kind}-{name.replace(' ', '-')}"


for name, metered in METERED.items():
    register(named("metered", name), metered)
for name, (failing, *_) in FAILING.items():
    register(named("failing", name), failing)
for name, (cached, _why) in CACHED.items():
    register(named("cached", name), cached)
register("metered-custom", Custom())
register("metered-custom-reported", Custom(), reports_usage=True)
register("cached-custom-versioned", Custom(), version="1")
register("documents", Prompt("Read: {documents}"))
register("echo-json", Lambda(lambda value: value))
register("gives-values", Lambda(values))
register("sync-only", RunnableLambda(str) | RunnableGenerator(chunks))
register("sync-checkpointer", counts())
