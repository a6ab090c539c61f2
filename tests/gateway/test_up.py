"""`batchord up --serve`: one command, and the page's own example runs against it."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchord.gateway.keys import PREFIX
from tests.support.api_server import jsonl, request
from tests.support.cli_harness import Running, Shell
from tests.support.harness import provider_env
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shell(tmp_path: Path, provider: OpenAIServer) -> Iterator[Shell]:
    shell = Shell(tmp_path / "shell", **provider_env(provider))
    yield shell
    shell.close()


def _up(shell: Shell) -> tuple[Running, str]:
    up = shell.start(
        *("up", "--serve", "--serve-port", "0", "--flower-port", "0"),
        *("--processes", "1", "--concurrency", "4"),
    )
    up.wait_for("Ctrl-C ends it all", timeout=180)
    [url] = re.findall(r"http://\S+/v1", up.err)
    return up, url


def test_the_example_of_the_serve_page_runs_on_one_machine(shell: Shell) -> None:
    up, url = _up(shell)
    [key] = re.findall(rf"{PREFIX}\S+", up.err)
    (shell.folder / "requests.jsonl").write_bytes(jsonl(request(i) for i in range(3)))
    text = (ROOT / "docs/serve.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)

    said = subprocess.run(
        [sys.executable, "-c", example],
        cwd=shell.folder,
        env={**shell.env, "SERVE_URL": url, "SERVE_KEY": key},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    first, *lines = said.stdout.splitlines()
    assert first == "completed 3 0", said.stderr
    assert [json.loads(line)["custom_id"] for line in lines] == [f"request-{i}" for i in range(3)]
    assert "openai-requests" in shell.run("list").out
    up.send(signal.SIGINT)
    assert up.wait(60) == 0, up.err
    shell.check_nothing_is_left(timeout=10)
    again, _ = _up(shell)
    assert PREFIX not in again.err, "the key is shown once"


def test_killed_it_leaves_no_server_behind(shell: Shell) -> None:
    up, _ = _up(shell)
    assert shell.processes("batchord.local.api_server")
    up.send(signal.SIGKILL)
    up.wait()
    shell.check_nothing_is_left(timeout=60)
