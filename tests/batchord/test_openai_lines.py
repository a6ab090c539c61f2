"""Files of OpenAI's Batch API: `batchord run` reads them, asks a server, and writes its lines."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchord.chains.steps.raw_request import REQUESTS
from batchord.commands.options import chain_and_inputs
from batchord.io import openai_lines
from batchord.io.input_file import InputFile
from batchord.ledger.errors import SubmitRefused
from batchord.ledger.models import BatchStatus, Item, ItemError, ItemStatus
from batchord.ledger.settings import Settings
from tests.conftest import Deploy
from tests.support.cli_harness import Shell, results
from tests.support.harness import Deployment, provider_env
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(60)

CHAT = "/v1/chat/completions"


def request(number: int, text: str | None = None, **more: Any) -> dict[str, Any]:
    """A line: `more` stands in for fields, or takes them away where it is None."""
    messages = [{"role": "user", "content": text or f"text {number}"}]
    line = {
        "custom_id": f"request-{number}",
        "method": "POST",
        "url": CHAT,
        "body": {"model": "m", "messages": messages, "top_k": 3},
        **more,
    }
    return {name: value for name, value in line.items() if value is not None}


@pytest.fixture
def provider(provider_for_module: OpenAIServer) -> OpenAIServer:
    return provider_for_module


@pytest.fixture(scope="module")
def served(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Deployment:
    """A worker that asks the provider, and has no chains but what every worker has."""
    deployment = deploy_for_module()
    env = {**provider_env(provider_for_module), "BATCHORD_CHAINS": ""}
    deployment.start_worker(env=env)
    return deployment


@pytest.fixture
def shell(served: Deployment, provider: OpenAIServer, tmp_path: Path) -> Iterator[Shell]:
    provider.reset()
    shell = Shell(tmp_path / "shell", BATCHORD_REDIS_URL=served.url)
    yield shell
    shell.close()


def test_a_file_runs_here_and_its_answers_are_lines_in_its_order(
    shell: Shell, provider: OpenAIServer, served: Deployment
) -> None:
    provider.delay = lambda text: 0.1 if text.endswith("0") else 0.0
    provider.fail_when("text 3", status=400, message="no such thing")
    shell.write("in.jsonl", (request(i) for i in range(20)))

    answer = shell.run("run", "-i", "in.jsonl", "-o", "out.jsonl", "--json")

    assert answer.code == 3, answer.err
    counts = answer.json["request_counts"]
    assert (counts["total"], counts["succeeded"], counts["failed"]) == (20, 19, 1)
    assert answer.json["chain"] == REQUESTS
    lines = results(shell.folder / "out.jsonl")
    assert [line["custom_id"] for line in lines] == [f"request-{i}" for i in range(20)]
    assert len({line["id"] for line in lines}) == 20
    for i, line in enumerate(lines):
        assert line.keys() == {"id", "custom_id", "response", "error"}
        assert line["response"].keys() == {"status_code", "request_id", "body"}
        if i != 3:
            content = line["response"]["body"]["choices"][0]["message"]["content"]
            assert (content, line["error"]) == (f"echo: text {i}", None)
    assert lines[3]["response"]["status_code"] == 400
    assert lines[3]["response"]["body"]["error"]["message"] == "no such thing"
    assert lines[3]["error"] is None, "it is in the answer"
    bodies = [json.dumps(sent.body, sort_keys=True) for sent in provider.requests]
    assert sorted(bodies) == sorted(
        json.dumps(request(i)["body"], sort_keys=True) for i in range(20)
    )
    usage = answer.json["usage"]
    assert (usage["requests"], usage["input_tokens"]) == (20, 19 * 2)
    again = shell.run("results", answer.json["id"], "--format", "openai")
    assert again.out == (shell.folder / "out.jsonl").read_text(), "also later, from the ledger"


def test_errors_go_into_a_file_of_their_own_and_stdin_is_as_good_as_a_file(
    shell: Shell, provider: OpenAIServer
) -> None:
    provider.fail_when("text 1", status=422)
    lines = [json.dumps(request(i)) for i in range(3)]
    options = ["-o", "out.jsonl", "--errors", "errors.jsonl", "--model", "another"]

    answer = shell.run("run", "-i", "-", *options, stdin="\n\n".join(lines))

    assert answer.code == 3, answer.err
    good, bad = (results(shell.folder / name) for name in ("out.jsonl", "errors.jsonl"))
    assert [line["custom_id"] for line in good] == ["request-0", "request-2"]
    assert [line["response"]["status_code"] for line in bad] == [422]
    assert {sent.body["model"] for sent in provider.requests} == {"another"}
    assert "Results: out.jsonl (failed: 1, in errors.jsonl)" in answer.out
    assert not list(shell.tmp.iterdir())


def test_a_bad_line_is_named_before_anything_is_started_or_submitted(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "shell")  # without a Redis: a run would start one
    try:
        shell.write("in.jsonl", [*(request(i) for i in range(2_000)), request(7)])
        answer = shell.run("run", "-i", "in.jsonl", "-o", "out.jsonl")
        assert answer.code == 2
        assert answer.err.count("\n") == 1
        assert "line 2001: the custom_id 'request-7' is there already" in answer.err
        assert not (shell.folder / "out.jsonl").exists()
    finally:
        shell.close()


def test_with_a_chain_such_lines_are_its_inputs_as_ever_unless_the_format_says_else() -> None:
    text = "".join(json.dumps(request(i)) + "\n" for i in range(3))

    def read(*, requests: bool) -> tuple[Any, list[Any], list[str] | None]:
        chain, lines = chain_and_inputs(
            "mine",
            InputFile("-", io.BytesIO(text.encode())),
            Settings(),
            requests=requests,
            model=None,
        )
        inputs, ids = list(lines), lines.custom_ids
        return chain, inputs, None if ids is None else list(ids)

    assert read(requests=False) == ("mine", [request(i) for i in range(3)], None)
    posted = [{"url": CHAT, "body": request(i)["body"]} for i in range(3)]
    assert read(requests=True) == ("mine", posted, [f"request-{i}" for i in range(3)])


def test_the_line_that_the_docs_show_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs/running.md").read_text()
    [line] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    lines = openai_lines.requests(InputFile("-", io.BytesIO(line.encode())), Settings())
    assert [each["body"]["model"] for each in lines] == ["m"]


BAD: dict[str, list[Any]] = {
    "no JSON": ["{"],
    "not a request": [{"input": "text"}],
    "no custom_id": [request(0), request(1, custom_id=None)],
    "a number for a custom_id": [request(0, custom_id=7)],
    "a repeated custom_id": [request(0), request(1), request(0)],
    "no method": [request(0, method=None)],
    "another method": [request(0, method="GET")],
    "no body": [request(0, body=None)],
    "a body of text": [request(0, body="text")],
    "too large": [request(0, "x" * 300_000)],
    "nothing": [],
}
SAID = {
    "no JSON": "line 1 is not JSON",
    "not a request": "line 1 is not a request .* name the CHAIN",
    "no custom_id": "line 2: custom_id must be there",
    "a number for a custom_id": "line 1: custom_id must be there, a text",
    "a repeated custom_id": "line 3: the custom_id 'request-0' is there already",
    "no method": "line 1: method must be there",
    "another method": "line 1: method: 'GET' is not supported: requests are POST",
    "no body": "line 1 is not a request",
    "a body of text": "line 1: body: Input should be a valid dictionary",
    "too large": "line 1: too large: .* BATCHORD_MAX_INPUT_BYTES",
    "nothing": "no requests",
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_with_a_bad_line_is_refused(name: str) -> None:
    text = "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in BAD[name])
    with pytest.raises(SubmitRefused, match=SAID[name]):
        openai_lines.requests(InputFile("-", io.BytesIO(text.encode())), Settings())


@pytest.mark.parametrize(
    ("status", "code"),
    [(ItemStatus.CANCELLED, "batch_cancelled"), (ItemStatus.EXPIRED, "batch_expired")],
)
def test_what_was_never_asked_has_openais_code_and_no_response(
    status: ItemStatus, code: str
) -> None:
    line = json.loads(openai_lines.line("batch_1", Item(index=4, custom_id="a", status=status)))
    assert (line["id"], line["response"], line["error"]["code"]) == ("batch_1:4", None, code)


def test_an_answer_that_was_too_long_to_keep_still_has_its_status() -> None:
    error = ItemError(code="bad_request", message="no", http_status=400, raw='{"status_code": 4…')
    item = Item(index=0, custom_id="a", status=ItemStatus.FAILED, error=error)
    line = json.loads(openai_lines.line("batch_1", item))
    assert line["response"]["status_code"] == 400
    assert line["response"]["body"]["error"]["message"] == "no"
    assert line["error"] is None


@pytest.mark.parametrize("body", ["<html>no</html>", None, ["no"], 7])
def test_the_body_of_a_refusal_is_always_an_object(body: Any) -> None:
    raw = json.dumps({"status_code": 502, "request_id": "r", "body": body})
    error = ItemError(code="server_error", message="no", http_status=502, raw=raw)
    item = Item(index=0, custom_id="a", status=ItemStatus.FAILED, error=error)
    line = json.loads(openai_lines.line("batch_1", item))
    assert (line["response"]["status_code"], line["response"]["request_id"]) == (502, "r")
    assert line["response"]["body"]["error"]["message"] == "no"
    assert line["error"] is None


#: A line, and what becomes of it: the path that is asked, or the words of its error.
MIXED: list[tuple[str, dict[str, Any], str | None]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, None),
    ("/chat/completions", {"messages": [{"role": "user", "content": "Azure"}]}, None),
    ("/v1/embeddings", {"input": ["a b"]}, None),
    ("/v1/completions", {"prompt": "one two"}, None),
    ("/v1/score", {"text_1": "one", "text_2": ["two"]}, None),
    ("/score", {"text_1": "one", "text_2": ["two"]}, None),
    ("/v1/moderations", {"input": "one"}, None),
    ("/rerank", {"query": "one", "documents": ["two"]}, None),
    ("/v2/rerank", {"query": "one", "documents": ["two"]}, None),
    ("/v1/images/generations", {"prompt": "one"}, "is not supported: use one of"),
    ("https://api.openai.com/v1/responses", {"input": "one"}, "is not supported: use one of"),
    ("/v1/chat/completions", {"messages": [], "stream": True}, "a batch never streams"),
]


def test_of_a_mixed_file_what_can_run_runs_and_the_others_have_their_errors(
    shell: Shell, provider: OpenAIServer
) -> None:
    bodies = [{"model": f"model-{i}", **body} for i, (_, body, _) in enumerate(MIXED)]
    shell.write("in.jsonl", (request(i, url=MIXED[i][0], body=b) for i, b in enumerate(bodies)))

    answer = shell.run("run", "-i", "in.jsonl", "-o", "out.jsonl", "--json")

    assert answer.code == 3, answer.err
    lines = results(shell.folder / "out.jsonl")
    assert [line["custom_id"] for line in lines] == [f"request-{i}" for i in range(len(MIXED))]
    for line, (url, _, says) in zip(lines, MIXED, strict=True):
        if says is None:
            assert (line["response"]["status_code"], line["error"]) == (200, None), url
        else:
            assert line["response"] is None
            assert line["error"]["code"] == "invalid_input"
            assert says in line["error"]["message"]
    asked = {sent.body["model"]: sent.path for sent in provider.requests}
    assert asked == {
        f"model-{i}": f"/v1/{url.removeprefix('/v1').removeprefix('/v2').lstrip('/')}"
        for i, (url, _, says) in enumerate(MIXED)
        if says is None
    }


def test_how_patiently_requests_are_made_is_chosen_on_the_command_line(
    shell: Shell, provider: OpenAIServer
) -> None:
    provider.fail_when("text 0", status=503)
    provider.hang_when("text 1")
    shell.write("in.jsonl", [request(0), request(1)])

    options = ["--max-attempts", "2", "--request-timeout", "0.5", "--outage-patience", "0"]
    answer = shell.run("run", "-i", "in.jsonl", "-o", "out.jsonl", "--json", *options)

    assert answer.code == 3, answer.err
    lines = results(shell.folder / "out.jsonl")
    assert (lines[0]["response"]["status_code"], lines[0]["error"]) == (503, None)
    assert (lines[1]["response"], lines[1]["error"]["code"]) == (None, "timeout")
    assert sum("text 0" in sent.text for sent in provider.requests) == 2
    assert sum("text 1" in sent.text for sent in provider.requests) == 2


def test_how_long_an_outage_is_borne_is_chosen_on_the_command_line(
    shell: Shell, provider: OpenAIServer
) -> None:
    provider.fail_when(None, status=503)
    shell.write("in.jsonl", [request(0), request(1)])

    options = ["--outage-patience", "1"]
    answer = shell.run("run", "-i", "in.jsonl", "-o", "out.jsonl", "--json", *options)

    assert answer.code == 4, answer.err
    assert answer.json["status"] == BatchStatus.PAUSED
    assert answer.json["reason"]["code"] == "server_error"
    assert "told to fail (the provider has been down for" in answer.json["reason"]["message"]
    assert len(provider.requests) <= 20


def test_a_chain_has_its_own_attempts(shell: Shell) -> None:
    shell.write("in.jsonl", [{"input": 1}])
    answer = shell.run("submit", "mine", "-i", "in.jsonl", "--max-attempts", "2")
    assert answer.code == 2
    assert "--outage-patience are for requests" in answer.err


def test_outputs_that_are_no_answers_are_not_dressed_up_as_such() -> None:
    item = Item(index=0, status=ItemStatus.SUCCEEDED, output="text")
    with pytest.raises(openai_lines.NotAnswers, match="--format jsonl"):
        openai_lines.line("batch_1", item)


def test_a_missing_key_pauses_the_run_and_says_why(shell: Shell, provider: OpenAIServer) -> None:
    provider.fail_when(None, status=401)
    shell.write("in.jsonl", [request(0), request(1)])

    answer = shell.run("run", "-i", "in.jsonl", "-o", "out.jsonl", "--json")

    assert answer.code == 4
    assert answer.json["status"] == BatchStatus.PAUSED
    assert answer.json["reason"]["code"] == "authentication_error"
    assert "batchord resume" in answer.err
    assert (shell.folder / "out.jsonl").read_text() == ""
    assert shell.run("cancel", answer.json["id"]).code == 0
