"""How steps become chains."""

import asyncio
from functools import partial
from typing import Any

import pytest

from batchord.chains import Lambda, Parallel, Prompt, RunnableConfig, Sequence, coerce, explain


async def shout(text: str) -> str:
    return text.upper()


class Multiplier:
    """Foreign: sync only, and takes no config."""

    def __init__(self, by: int) -> None:
        self.by = by

    def invoke(self, value: int) -> int:
        return value * self.by


class Recorder:
    """Foreign: both colours, and takes a config."""

    def __init__(self) -> None:
        self.configs: list[RunnableConfig | None] = []

    def invoke(self, value: Any, config: RunnableConfig | None = None) -> Any:
        raise AssertionError("ainvoke comes first")

    async def ainvoke(self, value: Any, config: RunnableConfig | None = None) -> Any:
        self.configs.append(config)
        return value


def test_steps_run_one_after_the_other() -> None:
    chain = Lambda(str.strip) | str.lower | shout
    assert chain.invoke("  Rag ") == "RAG"


def test_a_dict_is_branches_side_by_side_wherever_it_stands() -> None:
    chain = {"text": str.strip, "size": len} | Lambda(lambda found: found) | {"all": dict}
    assert chain.invoke(" a ") == {"all": {"text": "a", "size": 3}}


def test_branches_keep_their_order_in_the_output() -> None:
    async def slow(text: str) -> str:
        await asyncio.sleep(0.01)
        return text

    assert list(Parallel({"slow": slow}, fast=len).invoke("x")) == ["slow", "fast"]


def test_a_function_may_stand_on_the_left() -> None:
    chain = str.strip | Lambda(len)
    assert chain.invoke(" a ") == 1


def test_sync_and_async_functions_and_what_wraps_them_are_steps() -> None:
    class Callable:
        async def __call__(self, text: str) -> str:
            return text + "!"

    wrapped = Lambda(lambda text: shout(text)) | partial("{}{}".format, ">") | Callable()
    assert wrapped.invoke("a") == ">A!"


def test_an_object_with_invoke_is_a_step_on_either_side() -> None:
    assert (Multiplier(2) | Lambda(lambda n: n + 1) | Multiplier(10)).batch([1, 2]) == [30, 50]


def test_ainvoke_is_preferred_and_given_the_config() -> None:
    recorder = Recorder()
    chain = coerce(recorder) | shout
    assert chain.invoke("a", {"tags": ["x"]}) == "A"
    assert chain.invoke("a") == "A"
    filled: dict[str, Any] = {
        "metadata": {},
        "callbacks": None,
        "recursion_limit": 25,
        "configurable": {},
    }
    assert recorder.configs == [{"tags": ["x"], **filled}, {"tags": [], **filled}]


def test_a_function_that_has_a_parameter_config_is_given_it() -> None:
    def tags(text: str, config: RunnableConfig) -> list[str]:
        return config["tags"]

    assert Lambda(tags).batch(["a", "b"], [{"tags": ["1"]}, {"tags": ["2"]}]) == [["1"], ["2"]]


def test_keyword_arguments_go_to_the_first_step() -> None:
    chain = Lambda(lambda text, suffix="": text + suffix) | str.upper
    assert chain.invoke("a", suffix="b") == "AB"
    assert chain.batch(["a", "c"], suffix="b") == ["AB", "CB"]


def test_a_step_without_options_refuses_keyword_arguments() -> None:
    with pytest.raises(TypeError, match="Prompt takes no keyword arguments, got suffix"):
        Prompt("{a}").invoke("a", suffix="b")


def test_sequences_in_sequences_are_one_sequence() -> None:
    inner = Lambda(str.strip) | str.lower
    chain = Sequence([inner, inner | len])
    assert len(chain.steps) == 5
    assert chain.invoke(" A ") == 1


@pytest.mark.parametrize("value", [3, None, "text", ["a"], Multiplier])
def test_what_cannot_be_a_step_is_refused_when_the_chain_is_built(value: Any) -> None:
    if value is Multiplier:  # a class is called with the input, as any callable
        assert isinstance(coerce(value).invoke(3), Multiplier)
        return
    with pytest.raises(TypeError, match="a step is a chain, a function"):
        Lambda(str) | value


def test_what_yields_many_outputs_is_refused_as_a_step() -> None:
    def many(text: str) -> Any:
        yield text

    with pytest.raises(TypeError, match="generator function cannot be a step"):
        coerce(many)


@pytest.mark.parametrize("build", [lambda: Parallel(), lambda: Sequence([])])
def test_a_chain_of_nothing_is_refused(build: Any) -> None:
    with pytest.raises(ValueError, match="needs at least one"):
        build()


def fail(text: str) -> str:
    raise ValueError(text)


@pytest.mark.parametrize(
    ("chain", "step"),
    [
        (Lambda(fail), "fail"),
        (Lambda(str) | fail, "fail"),
        (Lambda(str) | fail | fail, "fail#2"),
        (Parallel(summary=Lambda(str.strip) | fail), "summary.fail"),
        (Lambda(str) | {"a": {"b": fail}, "c": str}, "a.b.fail"),
        (Lambda(str) | Parallel(a=str) | Parallel(a=fail), "a.fail"),
        (Lambda(str).with_retry() | Lambda(fail).with_retry(), "fail"),
        (Lambda(lambda x: x) | (lambda x: fail(x)), "Lambda#2"),
        (Lambda(lambda x: Parallel(inner=fail).invoke(x), name="outer"), "outer"),
    ],
)
def test_an_error_names_the_step_that_raised_it(chain: Any, step: str) -> None:
    with pytest.raises(ValueError, match="boom") as raised:
        chain.invoke("boom")
    assert explain(raised.value).step == step


def test_an_error_that_is_raised_again_and_again_names_its_step_once() -> None:
    error = KeyError("the same object each time")

    def fail_alike(text: str) -> str:
        raise error

    chain = Parallel(a=fail_alike)
    for _ in range(3):
        with pytest.raises(KeyError):
            chain.invoke("x")
        assert explain(error).step == "a.fail_alike"


def test_when_a_branch_fails_the_others_are_cancelled_and_have_ended() -> None:
    ended = []

    async def slow(text: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("slow")
        return text

    with pytest.raises(ValueError, match="boom"):
        Parallel(slow=slow, bad=fail).invoke("boom")
    assert ended == ["slow"]
