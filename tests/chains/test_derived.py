"""Runnables derived from LangChain's and from ours: the same words, the same outputs."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableGenerator, RunnableLambda, RunnablePassthrough

from batchord.chains import (
    Chat,
    InvalidInput,
    Lambda,
    ListenedRun,
    Prompt,
    Registry,
    RetryPolicy,
    coerce,
)
from tests.support.openai_server import OpenAIServer


def fails(value: Any) -> Any:
    raise ValueError(f"no {value}" if isinstance(value, str) else "no good")


def told(value: Any, config: dict[str, Any]) -> Any:
    return [value, config["tags"], config["metadata"], config["configurable"]]


def plus(n: int, by: int = 1) -> int:
    return n + by


def seen(value: dict[str, Any]) -> str:
    return f"{value['a']} {value['error']}"


def routes(n: int, make: Callable[[Any], Any]) -> Any:
    return make(plus) if n > 1 else "small"


#: What is made of a step, in words that both have; the step is made from a function by `make`.
Make = Callable[[Any], Any]
DERIVED: dict[str, tuple[Callable[[Make], Any], list[Any]]] = {
    "bind": (lambda make: make(plus).bind(by=5), [1, 2]),
    "with_config": (lambda make: make(told).with_config(tags=["a"], metadata={"k": 1}), [1]),
    "with_config twice": (
        lambda make: make(told).with_config(tags=["b"]).with_config({"tags": ["a"]}),
        [1],
    ),
    "configurable": (lambda make: make(told).with_config(configurable={"x": 1}), [1]),
    "map": (lambda make: make(plus).map(), [[1, 2], [], [3]]),
    "assign": (lambda make: make(dict).assign(n=len, m=lambda d: d["a"] + 1), [{"a": 1}]),
    "pick": (lambda make: make(dict).pick("a"), [{"a": 1, "b": 2}, {"b": 1}]),
    "pick several": (lambda make: make(dict).pick(["a", "c"]), [{"a": 1, "b": 2}, {"b": 1}]),
    "pipe": (lambda make: make(plus).pipe(plus, plus), [1, 2]),
    "fallback": (lambda make: make(fails).with_fallbacks([make(plus)]), [1, 2]),
    "second fallback": (lambda make: make(fails).with_fallbacks([make(fails), make(plus)]), [1]),
    "unhandled": (
        lambda make: make(fails).with_fallbacks([make(plus)], exceptions_to_handle=(KeyError,)),
        [1],
    ),
    "exception_key": (
        lambda make: make(fails).with_fallbacks([make(seen)], exception_key="error"),
        [{"a": 1}],
    ),
    "exception_key without a dict": (
        lambda make: make(fails).with_fallbacks([make(seen)], exception_key="error").invoke,
        [],
    ),
    "returned chain": (lambda make: make(lambda n: routes(n, make)), [1, 2, 3]),
}


def comparable(outputs: list[Any]) -> list[Any]:
    return [str(each) if isinstance(each, Exception) else each for each in outputs]


@pytest.mark.parametrize("name", DERIVED)
def test_what_is_made_of_a_chain_is_what_langchain_makes(name: str) -> None:
    derive, inputs = DERIVED[name]
    theirs, ours = derive(RunnableLambda), derive(Lambda)
    if not inputs:
        for invoke in (theirs, ours):
            with pytest.raises(ValueError, match="exception_key"):
                invoke(1)
        return
    expected = comparable(theirs.batch(inputs, return_exceptions=True))
    assert comparable(ours.batch(inputs, return_exceptions=True)) == expected
    assert comparable(coerce(theirs).batch(inputs, return_exceptions=True)) == expected
    assert comparable([ours.invoke(each) for each in inputs[:1] if "un" not in name]) == (
        expected[:1] if "un" not in name else []
    )


#: A chain that is listened to, by the name of what its listeners are to hear.
LISTENED: dict[str, Callable[[Make], Any]] = {
    "text": lambda make: make(str),
    "dict": lambda make: make(lambda n: {"n": n}),
    "sequence": lambda make: make(str) | make(len),
    "error": lambda make: make(fails),
    "bound": lambda make: make(plus).bind(by=5),
}
CONFIG: Any = {"tags": ["a"], "metadata": {"k": 1}, "configurable": {"x": "y"}, "run_name": "mine"}


@pytest.mark.parametrize("name", LISTENED)
@pytest.mark.parametrize("config", [CONFIG, {}], ids=["config", "no config"])
def test_listeners_hear_what_langchains_hear(name: str, config: Any) -> None:
    heard: dict[Any, list[Any]] = {RunnableLambda: [], Lambda: []}
    for make, told in heard.items():
        found: dict[Any, list[Any]] = {}

        def hear(run: Any, told: dict[Any, list[Any]] = found) -> None:
            said = None if run.error is None else run.error.partition(")")[0]
            assert (run.end_time or run.start_time) >= run.start_time
            # What a chain without a name is called is each library's own.
            name = run.name if run.name == "mine" else None
            seen = [name, run.run_type, run.inputs, dict(run.outputs or {}), said]
            seen += [run.tags, dict(run.metadata)]
            told.setdefault(run.inputs["input"], []).append(seen)

        def hear_with_config(run: Any, config: Any, told: Any = found) -> None:
            told.setdefault(run.inputs["input"], []).append(config["configurable"])

        chain = LISTENED[name](make)
        listened = chain.with_listeners(on_start=hear, on_end=hear, on_error=hear)
        listened = listened.with_listeners(on_end=hear_with_config, on_error=hear_with_config)
        listened.batch([1, 2], config, return_exceptions=True)
        told.append({key: sorted(each, key=repr) for key, each in found.items()})
    ours, theirs = heard[Lambda], heard[RunnableLambda]
    assert ours == theirs
    assert [len(each) for each in ours[0].values()] == [3, 3]


def test_a_listener_may_be_async_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    async def hear(run: ListenedRun) -> None:
        heard.append(run.name)

    def broken(run: ListenedRun) -> None:
        raise ValueError("my listener's")

    listened = Lambda(plus).with_listeners(on_start=hear, on_end=broken)
    assert listened.batch([1, 2]) == [2, 3]
    assert heard == ["plus", "plus"]
    assert caplog.text.count("a listener of plus failed") == 2


NO_WAIT = {"max": 0.0}
#: What with_retry is given, the error, and how often it is called.
RETRIES: dict[str, tuple[dict[str, Any], Exception, int]] = {
    "any error": ({"exponential_jitter_params": NO_WAIT}, ValueError(), 3),
    "attempts": ({"stop_after_attempt": 5, "wait_exponential_jitter": False}, ValueError(), 5),
    "by type": (
        {"retry_if_exception_type": (KeyError,), "wait_exponential_jitter": False},
        ValueError(),
        1,
    ),
    "by function": (
        {"retry_if_exception_type": (OSError,), "exponential_jitter_params": NO_WAIT},
        FileNotFoundError(),
        3,
    ),
}


@pytest.mark.parametrize("name", RETRIES)
def test_with_retry_has_langchains_arguments(name: str) -> None:
    options, error, expected = RETRIES[name]
    for make in (RunnableLambda, Lambda):
        calls: list[int] = []

        def raises(n: int, calls: list[int] = calls) -> None:
            calls.append(n)
            raise error

        with pytest.raises(type(error)):
            make(raises).with_retry(**options).invoke(1)
        assert len(calls) == expected, make


def test_a_policy_of_ours_retries_what_may_pass() -> None:
    calls: list[int] = []

    def raises(n: int) -> None:
        calls.append(n)
        raise ValueError("for good")

    with pytest.raises(ValueError, match="for good"):
        Lambda(raises).with_retry(RetryPolicy(initial=0.0)).invoke(1)
    assert calls == [1]


def test_a_bound_max_concurrency_bounds_a_batch() -> None:
    running: list[int] = []
    most: list[int] = []

    async def counted(n: int) -> int:
        running.append(n)
        most.append(len(running))
        running.remove(n)
        return n

    assert Lambda(counted).with_config(max_concurrency=1).batch([1, 2, 3]) == [1, 2, 3]
    assert max(most) == 1


def test_a_function_that_returns_itself_for_ever_is_an_error() -> None:
    def again(n: int) -> Any:
        return step

    step = Lambda(again)
    with pytest.raises(RecursionError, match="recursion_limit"):
        step.invoke(1, {"recursion_limit": 3})


def test_a_runnable_without_async_is_run_in_a_thread_and_what_is_before_it_once() -> None:
    calls: list[int] = []

    def counted(n: int) -> int:
        calls.append(n)
        return n

    def plus_one(stream: Any) -> Any:
        yield from (n + 1 for n in stream)

    chain = RunnableLambda(counted) | RunnableGenerator(plus_one)
    assert coerce(chain).batch([1, 2]) == [2, 3]
    assert sorted(calls) == [1, 2]


def test_not_implemented_of_the_users_own_is_raised_once() -> None:
    calls: list[int] = []

    async def later(n: int) -> int:
        calls.append(n)
        raise NotImplementedError("not yet")

    with pytest.raises(NotImplementedError, match="not yet"):
        coerce(RunnableLambda(plus, later)).invoke(1)
    assert calls == [1]


MESSAGES = [
    SystemMessage("Be brief."),
    HumanMessage("Hello"),
    AIMessage("Hi"),
    HumanMessage("You?"),
]
ASKED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "You?"},
]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MESSAGES, ASKED),
        (ChatPromptTemplate(MESSAGES).invoke({}), ASKED),
        (HumanMessage("Hello"), [ASKED[1]]),
        ([HumanMessage([{"type": "text", "text": "Hello"}])], [ASKED[1]]),
    ],
    ids=["messages", "prompt value", "message", "parts"],
)
def test_a_chat_takes_langchains_messages(server: OpenAIServer, value: Any, expected: Any) -> None:
    Chat().invoke(value)
    assert server.requests[-1].body["messages"] == expected


def test_roles_have_langchains_names_too() -> None:
    messages = Prompt([("system", "a"), ("human", "b"), ("ai", "c"), ("user", "d")]).invoke({})
    assert [each["role"] for each in messages] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("role", ["humans", "placeholder", "tool", ""])
def test_an_unknown_role_is_refused(role: str) -> None:
    with pytest.raises(ValueError, match="system, developer, user, assistant"):
        Prompt([(role, "text")])


def test_assign_needs_a_dict() -> None:
    with pytest.raises(InvalidInput, match="assign takes a dict, not int"):
        Lambda(plus).assign(n=plus).invoke(1)


CELL = """
import sys
from batchord.chains import Chat, Prompt, register, get_chain
def step(text): return text + {suffix!r}
register("cell", Prompt("Hello {{name}}") | step | (lambda text: text.upper()), input_type=str)
"""


@pytest.mark.parametrize(
    ("module", "second", "refused"),
    [
        ("mine", "a", False),
        ("mine", "b", True),
        ("__main__", "a", False),
        ("__main__", "b", True),
    ],
)
def test_the_same_definition_again_is_no_other_chain(
    module: str, second: str, refused: bool
) -> None:
    registry = Registry()
    scope = {"__name__": module, "register": registry.register}
    code = CELL.replace("register, get_chain", "get_chain")
    exec(code.format(suffix="a"), dict(scope))
    if refused:
        with pytest.raises(ValueError, match="another chain is registered as 'cell'"):
            exec(code.format(suffix=second), dict(scope))
    else:
        exec(code.format(suffix=second), dict(scope))
        assert registry.get("cell").chain.invoke("x") == "HELLO XA"


def test_the_same_definition_in_another_module_is_refused() -> None:
    registry = Registry()
    code = CELL.replace("register, get_chain", "get_chain").format(suffix="a")
    exec(code, {"__name__": "one", "register": registry.register})
    with pytest.raises(ValueError, match="another chain"):
        exec(code, {"__name__": "two", "register": registry.register})


def test_a_console_may_define_a_chain_anew() -> None:
    lines = "".join(
        f"from batchord.chains import register, get_chain\nregister('c', lambda x: x + {n})\n"
        for n in (1, 2)
    )
    code = f"{lines}print('gives', get_chain('c').chain.invoke(1))\n"
    answer = subprocess.run(
        [sys.executable, "-i", "-q"],
        input=code,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert "gives 3" in answer.stdout, answer.stderr


def test_passthrough_of_langchain_is_a_step_of_ours() -> None:
    chain: Any = Lambda(dict) | RunnablePassthrough.assign(n=lambda found: found["a"] + 1)
    assert chain.batch([{"a": 1}]) == [{"a": 1, "n": 2}]
