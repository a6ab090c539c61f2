"""Logs of workers, their supervisor and Flower as JSON, and no line for each HTTP request."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from batchord.chains.runtime.item_context import ItemContext, item_name, scope
from batchord.ledger.core.json_logs import JsonFormatter, about
from batchord.ledger.core.message_ids import new_batch_id
from tests.conftest import Deploy
from tests.support.cli_harness import Shell
from tests.support.harness import Deployment, Process, provider_env, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

#: A chain that logs and warns as a user's code does, and makes a call.
_MINE = """
import logging, warnings
from batchord import Chat, Prompt, register

def tell(value):
    logging.getLogger("mine").warning("looking at a value")
    warnings.warn("old")
    print("printed")
    return value

register("telling", Prompt("{a}") | Chat() | tell)
"""


_LAST = re.compile(r"worker: \w+ shutdown \(MainProcess\)")


def lines(process: Process) -> list[dict[str, Any]]:
    """The log as what it must be: a JSON object a line, but for Celery's word at its end.

    Celery writes that in a signal handler, where no logger may be used.
    """
    said = [line for line in process.log.splitlines() if line and not _LAST.fullmatch(line)]
    return [json.loads(line) for line in said]


@pytest.fixture(scope="module")
def telling(deploy_for_module: Deploy) -> Deployment:
    deployment = deploy_for_module()
    (deployment.folder / "mine.py").write_text(_MINE)
    return deployment


def run(deployment: Deployment, provider: OpenAIServer, log_format: str) -> tuple[str, Process]:
    """Run a batch on a worker with this format; return the batch's id, and the worker."""
    env = {
        **provider_env(provider),
        "BATCHORD_CHAINS": "mine",
        "BATCHORD_LOG_FORMAT": log_format,
        "PYTHONPATH": str(deployment.folder),
    }
    worker = deployment.start_worker(env=env, wait=False)
    wait_until(deployment.client.chains, what="the worker is there", timeout=60)
    batch = deployment.client.submit("telling", [{"a": "x"}, {"b": "x"}])
    assert batch.wait(60).request_counts.succeeded == 1
    wait_until(lambda: "committed" in worker.log, what="its end is logged")
    worker.stop()
    worker.wait(60)
    return batch.id, worker


def test_each_line_of_a_worker_is_json_and_names_its_batch(
    telling: Deployment, provider_for_module: OpenAIServer
) -> None:
    batch_id, worker = run(telling, provider_for_module, "json")
    found = lines(worker)
    assert {"time", "level", "logger", "message", "process"} <= set.intersection(
        *({*line} for line in found)
    )
    by_message = {line["message"].split(" batch=")[0]: line for line in found}
    for message in ("item settled", "looking at a value", "printed", "batch committed"):
        assert by_message[message]["batch"] == batch_id
    assert by_message["looking at a value"]["item"] == 0
    assert any("UserWarning: old" in line["message"] for line in found)
    assert all(line["batch"] == batch_id for line in found if batch_id in line["message"])
    assert "HTTP Request" not in worker.log


def test_no_line_of_text_tells_of_a_request(
    telling: Deployment, provider_for_module: OpenAIServer
) -> None:
    batch_id, worker = run(telling, provider_for_module, "text")
    assert f"item settled batch={batch_id}" in worker.log
    assert "HTTP Request" not in worker.log


def test_flower_logs_json_too(telling: Deployment) -> None:
    env = {"BATCHORD_LOG_FORMAT": "json", "FLOWER_BASIC_AUTH": "a:b"}
    arguments = ["batchord.worker", "flower", "--port=0", "--address=127.0.0.1"]
    flower = telling.start(arguments, "flower", env=env)
    wait_until(
        lambda: "Connected to" in flower.log or not flower.alive, what="it is up", timeout=60
    )
    flower.stop()
    flower.wait(60)
    assert any("Visit me at" in line["message"] for line in lines(flower))


def test_a_setting_that_is_no_format_is_refused(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "shell")
    answer = shell.run("list", env={"BATCHORD_LOG_FORMAT": "xml"})
    shell.close()
    assert answer.code == 2
    assert "BATCHORD_LOG_FORMAT: Input should be 'text' or 'json'" in answer.err


def test_a_line_is_about_the_batch_that_it_names_else_about_the_item_that_runs() -> None:
    mine, other = new_batch_id(), new_batch_id()
    assert about("nothing runs") == {}
    with scope(ItemContext(name=item_name(mine, 3))):
        assert about("something") == {"batch": mine, "item": 3}
        assert about(f"lost batch={other}") == {"batch": other}
    assert about(f"Task batchord.run_items[{other}:7] received") == {"batch": other}


def test_an_error_is_one_line_with_its_traceback() -> None:
    try:
        raise ValueError("bad\nnews")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
        record = logging.LogRecord("a", logging.ERROR, "a.py", 1, "no %s", ("luck",), info)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found = json.loads(text)
    assert found["message"] == "no luck"
    assert found["error"].endswith("ValueError: bad\nnews")
