"""The providers behind LangChain's Runnables: which they are, and how their calls fail."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import httpx
import openai
import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

from batchord.chains.composition.adapters import Adapter
from batchord.chains.composition.langchain_providers import outage_of, provider_of
from batchord.chains.explain import explain
from batchord.chains.openai import client
from batchord.chains.runtime.checkpoints import Checkpoints
from batchord.chains.runtime.item_context import ItemContext, scope
from tests.providers.behaviours import sends
from tests.providers.server import MisbehavingServer
from tests.support.valkey import free_port


def model(name: str = "test-model", **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model_name=name, max_retries=0, **options)


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")


class State(TypedDict):
    text: str


def of_closure() -> Any:
    mine = model()
    return RunnableLambda(lambda text: mine.invoke(text))


def graph() -> Any:
    mine = model()

    async def node(state: State) -> State:
        return {"text": str((await mine.ainvoke(state["text"])).content)}

    made = StateGraph(State)
    made.add_node("node", node)
    made.add_edge(START, "node")
    made.add_edge("node", END)
    return made.compile()


# fmt: off
ONE_MODEL: list[tuple[str, Callable[[], Any]]] = [
    ("alone", model),
    ("sequence", lambda: ChatPromptTemplate.from_template("{x}") | model() | StrOutputParser()),
    ("bound", lambda: model().bind(stop=["x"]).with_retry()),
    ("branches", lambda: RunnableLambda(len) | {"a": model(), "b": model() | StrOutputParser()}),
    ("function", of_closure),
    ("graph", graph),
]
# fmt: on


@pytest.mark.parametrize("make", [row[1] for row in ONE_MODEL], ids=[row[0] for row in ONE_MODEL])
def test_its_calls_share_limit_and_outages_with_chat(make: Callable[[], Any]) -> None:
    found = provider_of(make())
    assert found is not None
    assert found.limit == client.cool_down_of("test-model")
    assert isinstance(found.model, ChatOpenAI)


@pytest.mark.parametrize(
    "other", [{"name": "b"}, {"base_url": "http://127.0.0.1:8/v1"}, {"api_key": "sk-other"}]
)
def test_another_model_address_or_key_is_another_provider(other: dict[str, Any]) -> None:
    both = provider_of({"a": model(), "b": model(**other)} | StrOutputParser())
    alone = provider_of(model(**other))
    assert both is not None
    assert alone is not None
    assert len({both.limit, alone.limit, client.cool_down_of("test-model")}) == 3
    assert both.model is None


def test_where_no_model_is_seen_there_is_no_provider() -> None:
    assert provider_of(RunnableLambda(len) | str) is None


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as server:
        yield server


@pytest.mark.parametrize(
    ("status", "code"), [(500, "server_error"), (529, "server_error"), (429, "rate_limited")]
)
def test_statuses_that_another_client_raises_may_be_an_outage(
    server: MisbehavingServer, status: int, code: str
) -> None:
    server.fail_when(None, status=status, retry_after=3.0)
    response = httpx.post(
        f"{server.base_url}/chat/completions", json={"model": "m", "messages": []}
    )
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    found = outage_of(caught.value)
    assert found is not None
    assert (found.code, found.http_status, found.after) == (code, status, 3.0)


def test_a_refused_connection_and_silence_may_be_an_outage_and_a_400_is_not(
    server: MisbehavingServer,
) -> None:
    def posted(base_url: str) -> Exception:
        with pytest.raises(httpx.HTTPError) as caught:
            httpx.post(f"{base_url}/chat/completions", json={}, timeout=0.5).raise_for_status()
        return caught.value

    refused = outage_of(posted(f"http://127.0.0.1:{free_port()}"))
    assert refused is not None
    assert refused.code == "connection_error"
    server.hang_when(None)
    silent = outage_of(posted(server.base_url))
    assert silent is not None
    assert silent.code == "timeout"
    server.forget_rules()
    server.fail_when(None, status=400)
    assert outage_of(posted(server.base_url)) is None
    assert outage_of(TimeoutError()) is None


@pytest.mark.parametrize("status", [302, 307])
def test_on_workers_a_redirect_is_an_error_that_names_the_address(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    elsewhere = f"{server.base_url}/models"
    server.misbehave(sends("", status, location=elsewhere))

    async def item() -> None:
        with scope(ItemContext(kept=Checkpoints("batch:1"))):
            await Adapter(model() | StrOutputParser()).ainvoke("hello")

    with pytest.raises(openai.APIStatusError) as caught:
        asyncio.run(item())
    info = explain(caught.value)
    assert (info.code, info.http_status, info.step) == ("redirected", status, "ChatOpenAI")
    assert elsewhere in info.message
    assert len(server.requests) == 1
