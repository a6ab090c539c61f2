"""Chains that are run four ways: by LangChain, wrapped, as ours, and on workers (tests/parity)."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import langgraph.graph  # noqa: F401  (as a worker starts, and not in the time of the first item)
import pydantic
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda
from langchain_openai import ChatOpenAI

from batchord.chains import Lambda, Parallel, RetryLater, Usage, register
from batchord.chains.runtime.item_context import report_usage


class Person(pydantic.BaseModel, strict=True):
    name: str
    age: int


class Named(pydantic.BaseModel):
    """Greet a person."""

    name: str


def shout(text: str) -> str:
    return text.upper()


def only_short(text: str) -> str:
    if len(text) > 3:
        raise ValueError(f"too long: {len(text)}")
    return text


def told(_: Any, config: RunnableConfig) -> dict[str, Any]:
    """Return what the caller tells it: not the names of its runs, nor of their parents."""
    found = {name: config.get(name) for name in ("tags", "configurable", "recursion_limit")}
    metadata = config.get("metadata") or {}
    own = {name: value for name, value in metadata.items() if not name.startswith("batchord_")}
    return {**found, "metadata": own}


def told_in_full(_: Any, config: RunnableConfig) -> dict[str, Any]:
    return {name: config.get(name) for name in ("tags", "metadata", "run_name")}


def kind_of(value: Any) -> str:
    return type(value).__name__


def reply(text: str) -> AIMessage:
    call = {"name": "look_up", "args": {"text": text}, "id": "call-1"}
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    return AIMessage(text, tool_calls=[call], usage_metadata=usage, id="m-1")


def documents(text: str) -> list[Document]:
    return [Document(part, metadata={"n": n}) for n, part in enumerate(text.split())]


def person(name: str) -> Person:
    return Person(name=name, age=len(name))


def spends(text: str) -> str:
    report_usage(Usage(requests=1, input_tokens=10, output_tokens=len(text)))
    return text


def busy(text: str) -> str:
    raise RetryLater(f"{text} is busy", code="busy", http_status=503)


class Row(NamedTuple):
    """A chain, as LangChain's and as ours, and what both are given."""

    langchain: Any
    own: Any
    inputs: Sequence[Any]
    config: Any = None
    output_type: Any = None
    #: Of "wrapped", "own", "remote": why its outputs are others.
    differs: Mapping[str, str] = {}


PROMPT = ChatPromptTemplate([("system", "Be brief."), ("human", "{text}")])
#: What a worker is told, and what LangChain is told in process.
CONFIG = {
    "tags": ["nightly"],
    "metadata": {"user": "u1", "path": ["a", 1]},
    "configurable": {"thread_id": "t1"},
    "recursion_limit": 7,
}

#: A row is one line where it can be.
ROWS = {
    "text": Row(RunnableLambda(shout), Lambda(shout), ["a", "b", ""]),
    "number": Row(RunnableLambda(lambda n: n * 2), Lambda(lambda n: n * 2), [0, -1, 2**60, 0.5]),
    "branches": Row(
        RunnableLambda(shout) | {"up": shout, "kind": kind_of},
        Lambda(shout) | Parallel({"up": shout, "kind": kind_of}),
        ["a", "b"],
    ),
    "errors": Row(RunnableLambda(only_short), Lambda(only_short), ["a", "long", "b", "longer"]),
    "prompt value": Row(PROMPT, None, [{"text": "a"}, {"text": "b"}]),
    "message": Row(RunnableLambda(reply), Lambda(reply), ["a", "b"]),
    "documents": Row(RunnableLambda(documents), Lambda(documents), ["a b", "", "c"]),
    "message in a dict": Row(
        RunnableLambda(lambda text: {"reply": reply(text), "n": 1}), None, ["a", "b"]
    ),
    "looks like LangChain's": Row(
        RunnableLambda(lambda text: [text, reply("x")]),
        None,
        [{"lc": 1, "type": "constructor", "id": ["langchain"], "kwargs": {}}, {"lc": 2}],
    ),
    "messages in": Row(
        RunnableLambda(lambda found: [*found, kind_of(found[0])]),
        None,
        [[HumanMessage("a")], [SystemMessage("b"), ToolMessage("c", tool_call_id="1")]],
    ),
    "prompt value in": Row(
        RunnableLambda(lambda value: value.to_string()) | StrOutputParser(),
        Lambda(lambda value: value.to_string()),
        [PROMPT.invoke({"text": "a"}), PROMPT.invoke({"text": "b"})],
    ),
    "documents in": Row(
        RunnableLambda(itemgetter("found")) | (lambda found: found[0].page_content),
        Lambda(itemgetter("found")) | (lambda found: found[0].page_content),
        [{"found": documents("a b")}],
    ),
    "structure": Row(RunnableLambda(person), Lambda(person), ["Ada"], output_type=Person),
    "config": Row(RunnableLambda(told), None, [1, 2], config=CONFIG),
    "config for each": Row(
        RunnableLambda(told), None, [1, 2, 3], config=[CONFIG, CONFIG, {"tags": ["own"]}]
    ),
    "config of the second": Row(RunnableLambda(told), None, [1, 2], config=[{}, CONFIG]),
    "alternatives": Row(
        PROMPT.configurable_alternatives(
            ConfigurableField(id="prompt"),
            default_key="brief",
            bare=ChatPromptTemplate([("human", "{text}")]),
        ),
        None,
        [{"text": "a"}, {"text": "b"}],
        config=[{"configurable": {"prompt": "bare"}}, {}],
    ),
    "unknown names in a config": Row(RunnableLambda(told), None, [1], config={"user_id": "u2"}),
}


def registered_as(name: str) -> str:
    """The name that a row's chain is registered under."""
    return "parity-" + name.replace("'", "").replace(" ", "-")


for name, row in ROWS.items():
    # For its cache: LangChain cannot serialize a function.
    register(registered_as(name), row.langchain, output_type=row.output_type, version="1")


def model() -> Any:
    """A model whose name the caller may choose."""
    return ChatOpenAI(model_name="test-model", max_retries=0).configurable_fields(
        model_name=ConfigurableField(id="model")
    )


# Other modules of chains are imported beside this one: their names are others.
register("lc-shout", shout)
register("lc-echo", RunnableLambda(lambda value: value))
register("lc-told", told_in_full)
register("lc-told-foreign", RunnableLambda(told_in_full))
register("lc-kind", kind_of)
register("lc-node", lambda state: {"text": shout(state["text"])})
register("lc-typed-messages", lambda found: list(map(kind_of, found)), input_type=list[AnyMessage])
register("lc-spends", spends)
register("lc-busy", busy)
register("lc-persons", person, output_type=Person)
register("lc-greets", lambda found: f"Hello {found.name}", input_type=Named, output_type=str)
register("lc-choose-model", RunnableLambda(lambda text, config: model().invoke(text, config)))
