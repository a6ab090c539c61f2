"""The chapter on LangChain's batch execution, run as it stands, wrapped by us, and by us alone."""

import pathlib
import subprocess
import sys
from typing import Any

import pytest

from batchord.chains import Runnable, coerce, get_chain
from batchord.chains.runtime.loop_thread import default_loop
from tests.chains_for_tests import seed
from tests.support.openai_server import OpenAIServer


def alike(results: list[Any]) -> list[Any]:
    """Results that can be compared: exceptions by class and text."""
    return [(type(r).__name__, str(r)) if isinstance(r, Exception) else r for r in results]


def three(name: str) -> tuple[Any, Runnable[Any, Any], Runnable[Any, Any]]:
    """LangChain's own chain, the same registered here, and ours."""
    return seed.CHAINS[name][1], get_chain(f"{name}-lc").chain, get_chain(name).chain


@pytest.mark.parametrize("name", list(seed.CASES))
def test_batch_gives_the_same_three_times(server: OpenAIServer, name: str) -> None:
    inputs, expected = seed.CASES[name]
    langchains, wrapped, ours = (chain.batch(inputs) for chain in three(name))
    assert langchains == wrapped == ours
    assert len(ours) == len(inputs)
    if expected is not None:
        assert ours == expected
    else:
        assert all(inputs[n] in output for n, output in enumerate(ours))


@pytest.mark.parametrize("name", list(seed.CASES))
def test_abatch_gives_the_same_three_times(server: OpenAIServer, name: str) -> None:
    inputs, _ = seed.CASES[name]
    # On one loop: LangChain keeps one client for all of them.
    langchains, wrapped, ours = (
        default_loop().run(chain.abatch(inputs, {"max_concurrency": 2})) for chain in three(name)
    )
    assert langchains == wrapped == ours


@pytest.mark.parametrize("name", list(seed.CASES))
def test_invoke_gives_the_same_three_times(server: OpenAIServer, name: str) -> None:
    one = seed.CASES[name][0][0]
    langchains, wrapped, ours = (chain.invoke(one) for chain in three(name))
    assert langchains == wrapped == ours


def test_return_exceptions_gives_the_same_three_times() -> None:
    langchains, wrapped, ours = (
        alike(chain.batch(seed.SHORT_INPUTS, return_exceptions=True))
        for chain in three("seed-short")
    )
    assert langchains == wrapped == ours
    assert ours == [
        "SHORT",
        ("ValueError", "too long: 20"),
        "BRIEF",
        ("ValueError", "too long: 28"),
    ]


def test_as_completed_gives_the_same_three_times() -> None:
    langchains, wrapped, ours = (
        sorted(chain.batch_as_completed(seed.CASES["seed-upper"][0]))
        for chain in three("seed-upper")
    )
    assert langchains == wrapped == ours == [(0, "RAG"), (1, "AGENTS"), (2, "MEMORY")]


def test_an_error_is_raised_three_times() -> None:
    for chain in three("seed-short"):
        with pytest.raises(ValueError, match="too long: 20"):
            chain.batch(seed.SHORT_INPUTS[:3])  # of two that fail, either may come first


def test_steps_of_both_kinds_make_one_chain(server: OpenAIServer) -> None:
    mixed = (
        coerce(seed.CHAINS["seed-clean"][1])
        | seed.CHAINS["seed-upper"][0]
        | {
            "ours": seed.CHAINS["seed-llm"][0],
            "theirs": seed.CHAINS["seed-llm"][1],
        }
    )
    assert mixed.batch([" Explain RAG "]) == [
        {"ours": "echo: EXPLAIN RAG", "theirs": "echo: EXPLAIN RAG"}
    ]


def test_chains_do_not_need_langchain() -> None:
    code = "import chains, sys; sys.exit(any(name.startswith('langchain') for name in sys.modules))"
    root = pathlib.Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
