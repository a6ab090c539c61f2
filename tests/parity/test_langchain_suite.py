"""LangChain's own tests of its Runnables, with their batch calls routed through our wrapper, or
through a RemoteRunnable.

They come from the source distribution of the installed langchain-core, with the plugins that it
names for its tests; pip keeps both in its cache.
"""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import Deploy

HERE: Final = Path(__file__).parent
VERSION: Final = version("langchain-core")

#: Tests that fail through our wrapper, and why that is right.
OWN_BATCH: Final = "it spies on the batch of a step: ours runs each input on its own, by ainvoke"
DIFFERENT: Final = {
    "test_prompt_with_chat_model": OWN_BATCH,
    "test_prompt_with_chat_model_async": OWN_BATCH,
    "test_prompt_with_llm": OWN_BATCH,
    "test_prompt_with_llm_parser": OWN_BATCH,
    "test_batch_size": OWN_BATCH,
    "test_async_batch_size": OWN_BATCH,
    "test_seq_batch_return_exceptions": "its Runnable has a batch and no invoke",
    "test_seq_abatch_return_exceptions": "its Runnable has a batch and no invoke",
    "test_with_config_async": "the config is the one that LangChain's own ainvoke hands on",
    "test_batch": "if all fallbacks fail, LangChain's invoke raises the first error, as we do; its "
    "batch raises the last",
    "test_abatch": "as test_batch",
}

ON_WORKERS: Final = (
    "runs of steps are traced on the worker; the caller's trace has one for the item"
)
ITEM: Final = "the worker names the item in the metadata, and counts its usage by a callback"
KEYWORDS: Final = "no keyword arguments go to the worker: they are options of the batch"
NAMED: Final = "an exception of the worker is an ItemNotSucceeded of its words here"

#: Tests that fail through a RemoteRunnable, and why that is right.
DIFFERENT_REMOTE: Final = {
    "test_passthrough_tap": KEYWORDS,
    "test_passthrough_tap_async": KEYWORDS,
    "test_with_config": ITEM,
    "test_with_config_async": ITEM,
    "test_default_method_implementations": ITEM,
    "test_default_method_implementations_async": ITEM,
    "test_runnable_gen_context_config": ON_WORKERS,
    "test_runnable_gen_context_config_async": ON_WORKERS,
    "test_runnable_iter_context_config": ON_WORKERS,
    "test_runnable_iter_context_config_async": ON_WORKERS,
    "test_runnable_lambda_context_config": ON_WORKERS,
    "test_runnable_lambda_context_config_async": ON_WORKERS,
    "test_sync": ON_WORKERS,
    "test_async": ON_WORKERS,
    "test_batch": NAMED,
    "test_abatch": NAMED,
    "test_batch_size": OWN_BATCH,
    "test_async_batch_size": OWN_BATCH,
}

#: Tests that may fail: their model gives its answers in the order of its calls, and on a worker the
#: items of a batch run at once.
UNORDERED: Final = {"test_fake_list_chat_model_batch"}

FILES: Final = (
    *("runnables/test_runnable.py", "runnables/test_fallbacks.py", "runnables/test_concurrency.py"),
    *("runnables/test_config.py", "runnables/test_configurable.py", "runnables/test_history.py"),
    *("runnables/test_tracing_interops.py", "callbacks/test_usage_callback.py"),
    *("language_models/llms/test_base.py", "fake"),
)
PLUGINS: Final = ("pytest-mock", "syrupy", "freezegun", "pytest-asyncio", "blockbuster")


def pip(*args: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *args]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if answer.returncode != 0:
        message = f"pip cannot fetch the tests of langchain-core {VERSION}:\n{answer.stderr[-600:]}"
        # Where it should be reachable, a test that is not run is a failure.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution, and its test plugins in `plugins`."""
    folder = tmp_path_factory.mktemp("langchain")
    pinned = f"langchain-core=={VERSION}"
    alone = ("--no-deps", "--no-build-isolation", "--no-binary", "langchain-core")
    pip("download", *alone, "--dest", str(folder), pinned)
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    [root] = [each for each in folder.iterdir() if each.is_dir()]
    groups = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]
    needed = [each for each in groups["test"] if re.split(r"[<>=\[; ]", each)[0] in PLUGINS]
    assert len(needed) == len(PLUGINS)
    # Their own dependencies are here but for one of blockbuster's.
    target = ("--quiet", "--no-deps", "--target", str(root / "plugins"))
    pip("install", *target, *needed, "forbiddenfruit")
    return root


def run(root: Path, **more: str) -> tuple[set[str], int, str]:
    """Return the names of the tests that failed, how many passed, and the whole report."""
    report = root / "report.xml"
    report.unlink(missing_ok=True)
    files = [f"tests/unit_tests/{each}" for each in FILES]
    plugins = ("pytest_asyncio", "syrupy", "pytest_mock", "routed_batches")
    loaded = [arg for plugin in plugins for arg in ("-p", plugin)]
    quiet = ("-q", "--no-header", "--tb=line", "-p", "no:cacheprovider")
    # What the tests trace is not to leave this machine.
    env = {**os.environ, **more, "HTTPS_PROXY": "http://127.0.0.1:1"}
    env["PYTHONPATH"] = os.pathsep.join((str(root / "plugins"), str(HERE)))
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", *loaded, *quiet, f"--junitxml={report}", *files],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert report.exists(), answer.stdout[-3000:] + answer.stderr[-3000:]
    cases = list(ET.parse(report).iter("testcase"))
    bad = [each for each in cases if {"failure", "error"} & {part.tag for part in each}]
    names = {str(case.get("name")).partition("[")[0] for case in bad}
    return names, len(cases) - len(bad), answer.stdout


def check(outcome: tuple[set[str], int, str], different: Mapping[str, str], most: int) -> None:
    """See that all pass but those that are to differ, that these do, and that some are routed."""
    failed, passed, said = outcome
    assert failed - different.keys() - UNORDERED == set(), said
    assert different.keys() - failed == set(), "they pass by now: take them out of the list"
    calls = re.search(r"routed calls: (\d+)", said)
    assert calls is not None, said
    assert int(calls[1]) >= most, "most calls are not routed any more"
    assert passed >= 40


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_langchains_own_tests_pass_through_our_wrapper(suite: Path) -> None:
    check(run(suite), DIFFERENT, 80)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_langchains_own_tests_pass_through_a_remote_chain(suite: Path, deploy: Deploy) -> None:
    # Their chains fail on purpose, all alike.
    env = {"BATCHORD_REDIS_URL": deploy().url, "BATCHORD_ALIKE_LIMIT": "0"}
    check(run(suite, **env), DIFFERENT_REMOTE, 40)
