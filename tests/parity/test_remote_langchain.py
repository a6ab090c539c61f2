"""A RemoteRunnable where LangChain wants a Runnable of its own."""

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Callable
from operator import itemgetter
from typing import Any, TypedDict

import pytest
from langchain_core._api import LangChainBetaWarning
from langchain_core.callbacks import (
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langgraph.graph import END, START, StateGraph

from batchord.chains import Lambda, Registry
from batchord.chains.langchain.objects import dump, load
from batchord.ledger.budget import Budget
from batchord.ledger.errors import IdempotencyConflict, ItemNotSucceeded, SubmitRefused
from batchord.ledger.models import BatchStatus
from batchord.producer import Client, RemoteRunnable
from tests.chains_for_tests.parity import Person, model, shout
from tests.parity.traces import Traces
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

INPUTS = ["a", "bb", "ccc"]


class State(TypedDict, total=False):
    text: str
    found: dict[str, Any]


def graph(step: Any) -> Any:
    """A graph whose node is a chain with the step in it."""
    made = StateGraph(State)
    made.add_node(
        "shout", RunnableLambda(itemgetter("text")) | step | (lambda text: {"text": text})
    )
    made.add_edge(START, "shout")
    made.add_edge("shout", END)
    compiled: Any = made.compile()
    return RunnableLambda(lambda text: {"text": text}) | compiled | itemgetter("text")


def fails(text: str) -> str:
    raise ValueError(text)


#: By name: a chain of LangChain's around a step, and how many batches three inputs make of it.
#: LangChain runs each input of a branch or a graph on its own.
WITHIN: dict[str, tuple[Callable[[Any], Any], int]] = {
    "alone": (lambda step: step, 1),
    "first": (lambda step: step | StrOutputParser(), 1),
    "last": (lambda step: RunnableLambda(str.strip) | step, 1),
    "a function before": (lambda step: str.strip | step, 1),
    "between": (lambda step: RunnableLambda(str.strip) | step | StrOutputParser(), 1),
    "pipe": (lambda step: step.pipe(StrOutputParser(), str.strip), 1),
    "with a chain of ours": (lambda step: step | _ours(step) | str.strip, 1),
    "twice": (lambda step: step | step, 2),
    "with_config": (lambda step: step.with_config(tags=["a"]), 1),
    "with_retry": (lambda step: step.with_retry(stop_after_attempt=2), 1),
    "with_fallbacks": (lambda step: RunnableLambda(fails).with_fallbacks([step]), 1),
    "with_types": (lambda step: step.with_types(input_type=str), 1),
    "with_listeners": (lambda step: step.with_listeners(on_end=lambda run: None), 1),
    "map": (lambda step: (lambda text: [text, text]) | step.map(), 3),
    "a branch of a dict": (lambda step: {"a": step, "b": str.strip} | RunnableLambda(str), 3),
    "a dict behind": (lambda step: step | {"a": str.strip, "b": str.lower}, 1),
    "RunnableParallel": (lambda step: RunnableParallel(a=step, b=str.strip), 3),
    "RunnableBranch": (lambda step: RunnableBranch((lambda t: len(t) > 1, step), str.strip), 2),
    "assign": (
        lambda step: RunnableLambda(lambda t: {"t": t}) | RunnablePassthrough.assign(s=_of(step)),
        3,
    ),
    "assign to it": (
        lambda step: step | RunnableParallel(t=str.strip).assign(n=lambda found: len(found["t"])),
        1,
    ),
    "given by a function": (lambda step: RunnableLambda(lambda text: step), 3),
    "a node of a graph": (graph, 3),
}


def _of(step: Any) -> Any:
    return itemgetter("t") | step


def _ours(step: Any) -> Any:
    ours: Any = Lambda(str.swapcase)
    return ours if isinstance(step, RemoteRunnable) else ours.as_langchain()


def batches(worker: Deployment) -> int:
    return int(worker.redis.zcard(f"{worker.settings.namespace}:batches"))


@pytest.mark.parametrize("name", WITHIN)
def test_it_is_a_step_of_langchains(worker: Deployment, name: str) -> None:
    make, count = WITHIN[name]
    here = make(RunnableLambda(shout))
    there = make(RemoteRunnable("lc-shout", client=worker.client))
    expected = here.batch(INPUTS)
    before = batches(worker)
    assert there.batch(INPUTS) == expected
    assert batches(worker) - before == count
    assert asyncio.run(there.abatch(INPUTS)) == expected
    assert there.invoke("dd") == here.invoke("dd")


#: Those that make single calls: `map` makes a batch of each list.
GATHERED = [n for n, (_, count) in WITHIN.items() if count > 1 and n not in ("twice", "map")]


@pytest.mark.parametrize("name", GATHERED)
def test_single_calls_share_batches_where_that_is_wanted(worker: Deployment, name: str) -> None:
    make, _ = WITHIN[name]
    there = make(RemoteRunnable("lc-shout", client=worker.client, gather_calls=0.2))
    inputs = [letter * 2 for letter in "abcdefghijklmnopqrst"]
    before = batches(worker)
    assert asyncio.run(there.abatch(inputs)) == make(RunnableLambda(shout)).batch(inputs)
    # One, unless the machine is so busy that it takes longer to come to the last call.
    assert batches(worker) - before < len(inputs) / 2


def test_a_call_that_shares_a_batch_has_its_own_config_error_and_callbacks(
    worker: Deployment,
) -> None:
    told = RemoteRunnable("parity-config", client=worker.client, gather_calls=0.2)
    short = RemoteRunnable("parity-errors", client=worker.client, gather_calls=0.2)
    typed = RemoteRunnable("lc-persons", client=worker.client, gather_calls=0.2)
    spends = RemoteRunnable("lc-spends", client=worker.client, gather_calls=0.2)

    async def app() -> None:
        calls = [told.ainvoke(1, {"tags": [f"t{i}"]}) for i in range(3)]
        assert [found["tags"] for found in await asyncio.gather(*calls)] == [["t0"], ["t1"], ["t2"]]
        some = [short.ainvoke(text) for text in ("a", "long", "b")]
        a, error, b = await asyncio.gather(*some, return_exceptions=True)
        assert (a, b) == ("a", "b")
        assert isinstance(error, ItemNotSucceeded)
        assert error.code == "ValueError"
        good, bad = typed.ainvoke("Ada"), typed.ainvoke(object())
        found = await asyncio.gather(good, bad, return_exceptions=True)
        assert found[0] == Person(name="Ada", age=3)
        assert isinstance(found[1], SubmitRefused)
        with get_usage_metadata_callback() as counted:
            await asyncio.gather(spends.ainvoke("a"), spends.ainvoke("bb"))
        assert counted.usage_metadata["lc-spends"]["output_tokens"] == 3

    asyncio.run(app())


def test_a_chain_of_ours_is_a_step_of_langchains() -> None:
    ours: Any = Lambda(shout) | {"a": str.strip, "b": len}
    made = RunnableLambda(str.strip) | ours.as_langchain() | itemgetter("a")
    assert isinstance(ours.as_langchain(), Runnable)
    assert made.batch([" a", "b "]) == ["A", "B"]
    assert asyncio.run(made.abatch(["a"])) == ["A"]
    assert made.invoke("a") == asyncio.run(made.ainvoke("a")) == "A"


def test_it_is_a_node_and_is_told_the_thread(worker: Deployment) -> None:
    told = RemoteRunnable("parity-config", client=worker.client)
    made = StateGraph(State)
    made.add_node("node", RemoteRunnable("lc-node", client=worker.client))
    made.add_node("told", told | (lambda found: {"found": found}))
    made.add_edge(START, "node")
    made.add_edge("node", "told")
    made.add_edge("told", END)
    config: Any = {"configurable": {"thread_id": "t1"}, "tags": ["a"], "recursion_limit": 9}
    state = made.compile().invoke({"text": "a"}, config)
    assert state["text"] == "A"
    found = state["found"]
    assert (found["tags"], found["recursion_limit"]) == (["a"], 9)
    assert found["configurable"]["thread_id"] == "t1"
    assert [name for name in found["configurable"] if name.startswith("__")] == []
    assert found["metadata"]["langgraph_node"] == "told"


class Heard(BaseCallbackHandler):
    """Notes what ended, with the parent of its run."""

    def __init__(self) -> None:
        self.started: dict[Any, str] = {}
        self.ended: list[tuple[str, Any]] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.started[kwargs["run_id"]] = str(kwargs.get("name"))

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.ended.append((self.started[kwargs["run_id"]], outputs))

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.ended.append((self.started[kwargs["run_id"]], type(error)))


def test_callbacks_are_called_in_the_caller(worker: Deployment) -> None:
    heard = Heard()
    step = RemoteRunnable("lc-shout", client=worker.client)
    step.batch(INPUTS, {"callbacks": [heard], "run_name": "loud"})
    assert heard.ended == [("loud", "A"), ("loud", "BB"), ("loud", "CCC")]
    busy = RemoteRunnable("lc-busy", client=worker.client)
    busy.batch(["a"], {"callbacks": [heard]}, return_exceptions=True)
    assert heard.ended[3:] == [("lc-busy", ItemNotSucceeded)]


def test_usage_of_remote_items_is_counted_in_the_caller(worker: Deployment) -> None:
    step = RemoteRunnable("lc-spends", client=worker.client)
    with get_usage_metadata_callback() as within:
        (RunnableLambda(str.strip) | step).batch(INPUTS)
    given = UsageMetadataCallbackHandler()
    asyncio.run(step.abatch(INPUTS, {"callbacks": [given]}))
    for counted in (within, given):
        usage = counted.usage_metadata["lc-spends"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (30, 6)


@pytest.mark.parametrize("chain", ["lc-told", "lc-told-foreign"])
def test_runs_on_workers_name_their_item(worker: Deployment, chain: str) -> None:
    batch = worker.client.submit(
        chain,
        [1, 2],
        custom_ids=["x", "y"],
        config={"tags": ["nightly"], "metadata": {"user": "u1"}, "run_name": "here"},
    )
    for index, found in enumerate(batch.outputs()):
        assert found["tags"] == ["nightly"]
        assert found["metadata"] == {
            "user": "u1",
            "batchord_batch_id": batch.id,
            "batchord_index": index,
            "batchord_custom_id": "xy"[index],
            "batchord_attempt": 1,
        }
    plain = worker.client.submit(chain, [1]).outputs()[0]["metadata"]
    assert sorted(plain) == ["batchord_attempt", "batchord_batch_id", "batchord_index"]


def test_the_model_that_the_caller_has_chosen_is_asked(
    worker: Deployment, server: OpenAIServer
) -> None:
    server.reset()
    step = RemoteRunnable("lc-choose-model", client=worker.client)
    configs: Any = [{"configurable": {"model": f"model-{i}"}} for i in range(2)]
    found = step.batch(["a", "b"], configs)
    assert [type(each) for each in found] == [AIMessage, AIMessage]
    assert {each.body["model"] for each in server.requests} == {"model-0", "model-1"}


REFUSED: dict[str, tuple[Any, str]] = {
    "an object": ({"configurable": {"db": object()}}, r"config: not JSON: object at \$.config.*db"),
    "bytes in metadata": ({"metadata": {"a": b""}}, "config: not JSON: bytes at .*metadata.a"),
    "in a list": ([{}, {"metadata": {"a": object()}}], r"config\[1\]: not JSON: object"),
    "too much": ({"metadata": {"a": "x" * 70_000}}, "config: over 65,536 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_travel_is_refused_by_name(worker: Deployment, name: str) -> None:
    config, why = REFUSED[name]
    before = batches(worker)
    step = RemoteRunnable("lc-shout", client=worker.client)
    with pytest.raises(SubmitRefused, match=why):
        step.batch(["a", "b"], config)
    with pytest.raises(SubmitRefused, match=why):
        worker.client.submit("lc-shout", ["a", "b"], config=config)
    assert batches(worker) == before


def test_a_client_refuses_callbacks_and_lists_of_another_length(worker: Deployment) -> None:
    submit = worker.client.submit
    with pytest.raises(SubmitRefused, match="callbacks"):
        submit("lc-shout", ["a"], config={"callbacks": [Heard()]})
    for count, said in ((1, "more inputs"), (3, "are 2 inputs")):
        with pytest.raises(SubmitRefused, match=said):
            submit("lc-shout", iter(["a", "b"]), config=[{}] * count)


def test_the_config_is_a_part_of_what_the_cache_and_dedupe_know_an_input_by(
    worker: Deployment,
) -> None:
    step = RemoteRunnable("parity-config", client=worker.client, cache=True, dedupe=True)
    chosen: Any = [{"configurable": {"k": k}} for k in ("a", "b", "a")]
    found = step.batch([1, 1, 1], chosen)
    assert [each["configurable"]["k"] for each in found] == ["a", "b", "a"]
    assert step.invoke(1, chosen[1])["configurable"] == {"k": "b"}


def test_objects_come_back_from_a_cache_and_from_a_twin(worker: Deployment) -> None:
    step = RemoteRunnable("parity-message", client=worker.client, cache=True, dedupe=True)
    for _ in range(2):
        assert [type(each) for each in step.batch(["a", "a"])] == [AIMessage, AIMessage]


def test_an_error_says_which_batch_item_and_why(worker: Deployment) -> None:
    step = RemoteRunnable("lc-busy", client=worker.client)
    with pytest.raises(ItemNotSucceeded) as caught:
        step.batch(["it"], custom_ids=["c1"])
    error = pickle.loads(pickle.dumps(caught.value))
    batch = worker.client.retrieve(error.batch_id)
    assert batch.wait(30).status is BatchStatus.COMPLETED
    found = next(iter(batch.results()))
    assert (error.index, error.custom_id, error.status) == (0, "c1", "failed")
    assert (error.code, error.retryable, error.http_status) == ("busy", True, 503)
    assert (error.step, error.attempts) == ("busy", 1)
    assert error.cause == found.error


def test_it_takes_the_options_of_submit(worker: Deployment) -> None:
    step = RemoteRunnable(
        "lc-shout",
        client=worker.client,
        metadata={"team": "a"},
        priority=3,
        budget=Budget(tokens=1_000_000),
        completion_window="1h",
        idempotency_key="options",
        dedupe=True,
    )
    assert step.batch(["a", "a"]) == step.batch(["a", "a"]) == ["A", "A"]
    record = worker.client.list(limit=1)[0]
    assert (record.metadata, record.dedupe) == ({"team": "a"}, True)
    assert (record.budget, record.idempotency_key) == (Budget(tokens=1_000_000), "options")
    assert record.expires_at is not None
    with pytest.raises(IdempotencyConflict, match="whose 2 inputs are others"):
        step.invoke("a")
    assert step.bind(idempotency_key=None).invoke("a") == "A"
    for wrong in (lambda: RemoteRunnable("lc-shout", speed=1), lambda: step.invoke("a", speed=1)):  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="not speed"):
            wrong()


def test_it_is_pickled_by_url_and_name(worker: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    step = RemoteRunnable("lc-persons", client=Client(worker.url), output_type=Person, cache=True)
    again = pickle.loads(pickle.dumps(step.with_config(tags=["a"])))
    assert again.batch(["Ada"]) == [Person(name="Ada", age=3)]
    secret = worker.url.replace("redis://", "redis://:hunter2@")
    with pytest.raises(pickle.PicklingError, match="BATCHORD_REDIS_URL"):
        pickle.dumps(RemoteRunnable("lc-persons", client=Client(secret)))
    monkeypatch.setenv("BATCHORD_REDIS_URL", secret)
    dumped = pickle.dumps(RemoteRunnable("lc-persons", client=Client(secret)))
    assert b"hunter2" not in dumped
    assert pickle.loads(dumped)._client.settings.redis_url.get_secret_value() == secret


def test_outputs_are_read_as_the_type_that_was_registered(worker: Deployment) -> None:
    step = RemoteRunnable("lc-persons", client=worker.client)
    assert step.batch(["Ada", "Bo"]) == [Person(name="Ada", age=3), Person(name="Bo", age=2)]


def test_a_prompt_a_remote_model_and_a_parser(worker: Deployment) -> None:
    step = RemoteRunnable("lc-echo", client=worker.client)
    prompt = ChatPromptTemplate([("human", "{text}")])
    assert (prompt | step).batch([{"text": "a"}]) == [prompt.invoke({"text": "a"})]
    kinds = RemoteRunnable("lc-kind", client=worker.client).batch([prompt.invoke({"text": "a"}), 1])
    assert kinds == ["ChatPromptValue", "int"]


def test_a_prompt_and_a_parser_around_a_remote_model(
    worker: Deployment, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in provider_env(server).items():
        monkeypatch.setenv(name, value)
    prompt = ChatPromptTemplate([("system", "Be brief."), ("human", "{text}")])
    around = [
        prompt | step | StrOutputParser()
        for step in (model(), RemoteRunnable("lc-choose-model", client=worker.client))
    ]
    here, there = (chain.batch([{"text": "a"}, {"text": "b"}]) for chain in around)
    assert here == there == ["echo: a", "echo: b"]


def test_messages_are_read_as_the_type_that_a_chain_declares(worker: Deployment) -> None:
    step = RemoteRunnable("lc-typed-messages", client=worker.client)
    assert step.invoke([HumanMessage("a"), AIMessage("b")]) == ["HumanMessage", "AIMessage"]


def test_as_a_step_of_a_submitted_chain_it_has_no_known_settings_nor_usage() -> None:
    remote: Any = RemoteRunnable("lc-shout", client=Client("redis://127.0.0.1:1/0"))
    entry = Registry().register("outer", {"a": str.strip, "b": remote})
    assert "'lc-shout' has settings" in str(entry.why_not_cached())
    assert "'lc-shout' uses is counted in batches of its own" in str(entry.why_not_metered())


def test_its_schemas_are_those_of_the_registered_chain(worker: Deployment) -> None:
    greets = RemoteRunnable("lc-greets", client=worker.client)
    assert greets.get_input_jsonschema()["properties"]["name"]["type"] == "string"
    assert greets.get_output_jsonschema()["type"] == "string"
    sized = RemoteRunnable("lc-greets", client=worker.client, output_type=int)
    assert sized.get_output_jsonschema()["type"] == "integer"
    assert "type" not in RemoteRunnable("lc-shout", client=worker.client).get_input_jsonschema()
    with pytest.warns(LangChainBetaWarning):
        tool = greets.as_tool(name="greet", description="Greet a person.")
    assert list(tool.args) == ["name"]
    assert tool.invoke({"name": "Ada"}) == "Hello Ada"


def test_langsmith_finds_an_item_by_its_names(worker: Deployment, traces: Traces) -> None:
    batch = worker.client.submit("lc-told-foreign", [1], custom_ids=["c1"], config={"tags": ["t"]})
    batch.wait(60)

    def found() -> list[Any]:
        runs = traces.runs()
        return [run for run in runs if _metadata(run).get("batchord_batch_id") == batch.id]

    wait_until(found, what="the trace is there", timeout=60)
    [run] = found()
    named = {"batchord_index": 0, "batchord_custom_id": "c1", "batchord_attempt": 1}
    assert named.items() <= _metadata(run).items()
    assert run["name"] == "told_in_full"
    assert "t" in run["tags"]


def _metadata(run: Any) -> dict[str, Any]:
    return dict((run.get("extra") or {}).get("metadata") or {})


def test_only_listed_classes_are_made() -> None:
    plain, types = dump(AIMessage("a"))
    assert load(plain, types) == AIMessage("a")
    with pytest.raises(Exception, match="ChatOpenAI"):
        load({"model": "x"}, {"": "ChatOpenAI"})


def test_langchain_is_imported_by_the_first_remote_chain_and_not_before() -> None:
    code = (
        "import sys, batchord; client = batchord.Client('redis://127.0.0.1:1/0'); "
        "assert 'langchain_core' not in sys.modules; "
        "batchord.RemoteRunnable('x', client=client); assert 'langchain_core' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_it_works_where_langchain_is_not_installed(worker: Deployment) -> None:
    code = (
        "import sys; sys.modules['langchain_core'] = None\n"
        "from batchord import Client, RemoteRunnable, SubmitRefused\n"
        f"step = RemoteRunnable('lc-shout', client=Client({worker.url!r}))\n"
        "assert step.batch(['a', 'b'], {'tags': ['t']}) == ['A', 'B']\n"
        "assert (step | str.lower).invoke('a') == 'a'\n"
        "try:\n    step.batch(['a'], {'callbacks': [print]})\n"
        "except SubmitRefused as error:\n    assert 'callbacks' in str(error)\n"
        "else:\n    raise AssertionError('it was taken')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
