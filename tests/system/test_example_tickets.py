"""Tickets in a CSV, interrupted and gone on with: `make demo` runs the same over a local model."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.openai_server import OpenAIServer

ROOT = Path(__file__).parents[2]
TICKETS, IN_FLIGHT = 300, 8


@pytest.mark.timeout(240)
def test_an_interrupted_run_over_300_tickets_pays_for_each_once(
    tmp_path: Path, provider: OpenAIServer
) -> None:
    provider.delay = 0.05
    done = subprocess.run(
        [sys.executable, "-m", "examples.tickets", "--folder", tmp_path],
        cwd=ROOT,
        env={**os.environ, "OPENAI_BASE_URL": provider.base_url, "OPENAI_API_KEY": "sk-test"}
        | {"OPENAI_MODEL": "test-model", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        # A session of tests that runs in the background ignores it; the script's command must not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Run the same command again to go on" in done.stderr
    assert "Going on with the run of" in done.stderr
    asked = [request.text for request in provider.requests]
    assert len(set(asked)) == TICKETS
    assert TICKETS <= len(asked) <= TICKETS + IN_FLIGHT, "and those that were in flight"
    assert f"{TICKETS} rows, {len(asked)} calls to the model" in done.stdout
    assert not list(tmp_path.glob("home/runs/*"))
