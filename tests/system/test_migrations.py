"""The examples of the pages docs/from-*.md run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Deploy
from tests.support.cli_harness import BIN
from tests.support.harness import Deployment, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(180)

DOCS = Path(__file__).parents[2] / "docs"


class Page:
    """The files of a page, in a folder, and the environment in which its commands run."""

    def __init__(self, name: str, deployment: Deployment, provider: OpenAIServer) -> None:
        text = (DOCS / name).read_text()
        self.deployment = deployment
        self.folder = deployment.folder / Path(name).stem
        self.folder.mkdir()
        for file, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL):
            (self.folder / file).write_text(code)
        for lines in re.findall(r"```json\n(.*?)```", text, re.DOTALL):
            (self.folder / "requests.jsonl").write_text(lines)
        self.commands = re.findall(r"```sh\n(.*?)\n```", text, re.DOTALL)
        model = provider_env(provider)
        del model["OPENAI_MODEL"]
        self.env = {**model, "PYTHONPATH": str(self.folder), "BATCHORD_CHAINS": ""}

    def start(self, *argv: str, chains: str = "", says: str = "ready.") -> None:
        """Start a worker, in the folder, and wait for what it says."""
        env = {**self.env, "BATCHORD_CHAINS": chains}
        process = self.deployment.start([*argv], argv[0].replace(".", "-"), env=env)
        wait_until(lambda: says in process.log, what=f"{argv} is ready", timeout=60)

    def run(self, *argv: str) -> str:
        """Run a command to its end; return what it prints."""
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.deployment.env(self.env),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def python(self, file: str) -> str:
        return self.run(sys.executable, file)


def test_the_page_for_a_chord(deploy: Deploy, provider: OpenAIServer) -> None:
    page = Page("from-celery.md", deploy(), provider)
    # Before: the body is not called.
    page.start("celery", "-A", "before", "worker", "-P", "threads", "-c", "4", "-l", "INFO")
    [celery] = page.deployment.processes
    page.python("before.py")
    wait_until(lambda: "ChordError" in celery.log or "KeyError" in celery.log, what="it fails")
    wait_until(lambda: len(provider.requests) == 2, what="the others have run")
    assert "answers" not in celery.log
    celery.stop()
    # After.
    page.start("batchord.worker", "-c", "4", "-l", "INFO", chains="triage")
    said = page.python("app.py").splitlines()
    assert [line.split(" ", 1)[0] for line in said] == ["0", "1", "2"]
    assert said[2] == "2 prompt_field_missing"
    page.start("celery", "-A", "shop", "worker", "-Q", "reports", "-P", "threads", "-l", "INFO")
    page.python("shop.py")
    shop = page.deployment.processes[-1]
    wait_until(lambda: "1 answers, 1 failed" in shop.log, what="the callback", timeout=60)


def test_the_page_for_langchain(deploy: Deploy, provider: OpenAIServer) -> None:
    page = Page("from-langchain.md", deploy(), provider)
    before = page.python("before.py")
    page.start("batchord.worker", "-c", "4", "-l", "INFO", chains="triage")
    assert page.python("app.py") == before
    said = page.python("later.py").splitlines()
    assert [line.split(" ")[:2] for line in said] == [
        ["0", "succeeded"],
        ["1", "succeeded"],
        ["2", "failed"],
    ]


def test_the_page_for_openais_batch_api(deploy: Deploy, provider: OpenAIServer) -> None:
    page = Page("from-openai-batch.md", deploy(), provider)
    page.start("batchord.worker", "-c", "4", "-l", "INFO", chains="")
    [command] = page.commands
    page.run(*command.replace("batchord", str(BIN / "batchord"), 1).split())
    assert len((page.folder / "results.jsonl").read_text().splitlines()) == 2
    assert (page.folder / "errors.jsonl").read_text() == ""
    said = page.python("app.py").splitlines()
    assert [line.split(" ", 1)[0] for line in said] == ["a", "b"]
