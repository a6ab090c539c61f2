"""The examples for other frameworks run as they stand, beside real workers and over real HTTP."""

import ast
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import Deploy
from tests.support.harness import Deployment, Process, provider_env, wait_until
from tests.support.openai_server import OpenAIServer
from tests.support.valkey import free_port

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
SITE = ROOT / "examples" / "django_site"

#: What the README registers.
TRIAGE = """
from typing import Literal
from pydantic import BaseModel
from batchord import Chat, Prompt, register

class Triage(BaseModel):
    urgency: Literal["low", "high"]
    summary: str

register("triage", Prompt("Read this ticket: {ticket}") | Chat(output_type=Triage))
"""
TICKETS = [{"ticket": "The site is down"}, {"ticket": "Please rename me"}, {"wrong": "no ticket"}]


@pytest.fixture(scope="module")
def working(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Iterator[Deployment]:
    """A deployment whose worker has the chains of the examples."""
    deployment = deploy_for_module()
    (deployment.folder / "triage.py").write_text(TRIAGE)
    (deployment.folder / "urgency.py").write_text((SITE / "chains_for_site.py").read_text())
    env = {**provider_env(provider_for_module), "BATCHORD_CHAINS": "triage,urgency"}
    deployment.start_worker(env=env)
    yield deployment
    for name in ("reports", "site"):  # what the examples' workers have bound
        deployment.redis.delete(f"_kombu.binding.{name}")


def ask(url: str, value: Any = None) -> str:
    """Return the answer of a GET, or of a POST of a value as JSON."""
    data = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def serving(process: Process, port: int) -> str:
    """Return the address of a server process once it answers."""

    def answers() -> bool:
        assert process.alive, process.log
        try:
            ask(f"http://127.0.0.1:{port}/tickets")
        except urllib.error.HTTPError as error:
            error.close()
            return True
        except OSError:
            return False
        return True

    wait_until(answers, what="the server answers", timeout=60)
    return f"http://127.0.0.1:{port}"


def test_fastapi_submits_streams_events_and_results(working: Deployment) -> None:
    port = free_port()
    command = ["uvicorn", "examples.fastapi_app:app", "--app-dir", str(ROOT), "--port", str(port)]
    site = serving(working.start(command, "uvicorn"), port)
    record = json.loads(ask(f"{site}/batches", {"chain": "triage", "inputs": TICKETS}))
    events = ask(f"{site}/batches/{record['id']}/events")
    assert events.startswith("event: progress\ndata: ")
    assert json.loads(events.strip().rsplit("data: ", 1)[1])["status"] == "completed"
    items = [
        json.loads(line) for line in ask(f"{site}/batches/{record['id']}/results").splitlines()
    ]
    assert [item["index"] for item in items] == [0, 1, 2]
    assert items[2]["error"]["code"] == "prompt_field_missing"
    for wrong in ({"chain": "no-such", "inputs": [1]}, {"chain": "triage", "inputs": []}):
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(f"{site}/batches", wrong)
        with caught.value as error:
            assert error.code == 422


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_task_of_the_user_s_own_app_is_called_at_the_end(working: Deployment, pool: str) -> None:
    env = {"SHOP_BROKER": working.url, "PYTHONPATH": str(ROOT)}
    options = ["-P", pool, "-c", "1", "-Q", "reports", "-l", "INFO"]
    worker = working.start(
        ["celery", "-A", "examples.celery_app", "worker", *options], "shop", env=env
    )
    script = working.folder / "submit.py"
    script.write_text(
        f"from examples.celery_app import submit\nprint(submit('triage', {TICKETS!r}))\n"
    )
    assert working.start_script(script, env=env).wait(60) == 0
    wait_until(
        lambda: "support: 2 of 3 succeeded, failed: [2]" in worker.log, what="told", timeout=60
    )
    worker.stop()
    assert worker.wait() == 0


def test_a_django_project_keeps_its_own_tasks_and_stores_the_answers(
    working: Deployment, provider_for_module: OpenAIServer
) -> None:
    env = {
        "SITE_DATABASE": str(working.folder / "site.sqlite3"),
        "PYTHONPATH": f"{SITE}:{ROOT}",
        "DJANGO_SETTINGS_MODULE": "helpdesk.settings",
    }
    manage = SITE / "manage.py"
    migrated = working.start_script(manage, "migrate", env=env)
    assert migrated.wait(60) == 0, migrated.log
    port = free_port()
    server = working.start_script(manage, "runserver", "--noreload", f"127.0.0.1:{port}", env=env)
    worker = working.start(
        ["celery", "-A", "helpdesk", "worker", "-Q", "site", "-c", "1", "-l", "INFO"],
        "site-worker",
        env=env,
    )
    site = serving(server, port)
    ask(f"{site}/tickets", ["The site is down", "Please rename me"])
    ask(f"{site}/tickets/triage", {})

    def stored() -> bool:
        tickets = json.loads(ask(f"{site}/tickets"))["tickets"]
        return all(ticket["urgency"] for ticket in tickets)

    wait_until(stored, what=f"the answers are stored: {worker.log[-3000:]}", timeout=60)
    assert "tickets.tasks.store_answers" in worker.log


def test_a_graph_has_a_node_on_the_workers(working: Deployment) -> None:
    before = len(working.client.list(limit=100))
    tickets = [each["ticket"] for each in TICKETS if "ticket" in each]
    command = ["examples.langgraph_app", *tickets]
    ran = working.start(command, "graph", env={"PYTHONPATH": str(ROOT)})
    assert ran.wait(90) == 0, ran.log
    states = [ast.literal_eval(line) for line in ran.log.splitlines() if line.startswith("{")]
    assert [state["ticket"] for state in states] == tickets, ran.log
    queues = {"high": "on call", "low": "support"}
    for state in states:
        assert state["summary"]
        assert state["queue"] == queues[state["urgency"]]
    listed = working.client.list(limit=100)
    made = listed[: len(listed) - before]
    assert sum(record.request_counts.total for record in made) == len(tickets)


def test_the_notebook_runs(working: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHORD_REDIS_URL", working.url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OPENAI_MODEL", "test-model")
    notebook = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    ran = NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
    _, _, _, watched, card, _, results, typed, _, remote = (
        [output["data"] for output in cell.get("outputs", ()) if "data" in output]
        for cell in ran.cells
    )
    bar, last = watched
    assert "2 succeeded" in bar["text/html"], "what it showed last"
    assert "prompt_field_missing" in bar["text/html"]
    assert "completed" in last["text/plain"]
    assert "3 of 3 done" in card[0]["text/html"]
    assert results[0]["text/html"].count("<tr>") == 4
    assert typed[0]["text/plain"].count("Triage(urgency=") == 2
    assert "prompt_field_missing" in typed[0]["text/plain"]
    assert remote[0]["text/plain"].count("urgency") == 2
