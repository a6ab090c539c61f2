"""`batchord run --prompt`: a file to typed answers, with no module and nothing started before."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from batchord.chains.specs.field_types import fields
from batchord.cli import program
from batchord.commands.chain_options import schema_in
from tests.support.cli_harness import Shell, results
from tests.support.harness import provider_env
from tests.support.openai_server import OpenAIServer
from tests.support.terminal import Terminal

pytestmark = pytest.mark.timeout(120)

SMALL = ("--processes", "1", "--concurrency", "8")
TICKETS = [{"subject": f"ticket {n}", "body": "down" if n % 2 else "up"} for n in range(20)]


@pytest.fixture
def shell(tmp_path: Path, provider: OpenAIServer) -> Iterator[Shell]:
    provider.delay = 0
    shell = Shell(tmp_path / "shell", **provider_env(provider))
    shell.write("tickets.jsonl", TICKETS)
    yield shell
    shell.close()


def test_a_column_becomes_a_matrix(shell: Shell) -> None:
    answer = shell.run("run", "--embed", "body", *SMALL, "-i", "tickets.jsonl", "-o", "vectors.npy")
    assert answer.code == 0, answer.err
    assert np.load(shell.folder / "vectors.npy").shape == (20, 64)


def test_chains_may_be_a_path_for_it_and_its_workers(shell: Shell) -> None:
    (shell.folder / "elsewhere").mkdir()
    shell.module("elsewhere/neighbour", "GREETING = 'hello'")
    shell.module(
        "elsewhere/greet",
        "from batchord import register\n"
        "from neighbour import GREETING\n"
        "register('greet', lambda row: f\"{GREETING} {row['subject']}\")\n",
    )
    path = "./elsewhere/greet.py"
    answer = shell.run(
        "run", "greet", "--chains", path, *SMALL, "-i", "tickets.jsonl", "-o", "out.jsonl"
    )
    assert answer.code == 0, answer.err
    assert results(shell.folder / "out.jsonl")[3]["output"] == "hello ticket 3"
    listed = shell.run("chains", "--chains", path, "--json")
    assert "greet" in [json.loads(line)["name"] for line in listed.out.splitlines()]


def test_an_estimate_is_made_offline(shell: Shell, provider: OpenAIServer) -> None:
    (shell.folder / "prices.json").write_text('{"vectors": {"input": 1000}}')
    shell.env["BATCHORD_PRICES"] = str(shell.folder / "prices.json")
    asked = ("estimate", "--prompt", "x" * 400 + "{body}", "-i", "tickets.jsonl", "--json")
    found = shell.run(*asked)
    assert found.code == 0, found.err
    assert found.json["items"] == 20
    assert 20 * 100 <= found.json["input_tokens"] <= 20 * 102
    assert found.json["cost_usd"] is None, "what a model writes is not known before"
    vectors = shell.run(*("estimate", "--embed", "subject", "-m", "vectors", *asked[3:]))
    assert vectors.json["cost_usd"] == pytest.approx(vectors.json["input_tokens"] / 1000)
    assert provider.requests == []


ASK = "submit -m m -i -"
ROW = '{"Betreff": 1, "Text": 2}'

REFUSALS = {
    "a prompt and a chain": (f"{ASK} echo --prompt {{a}}", ["CHAIN (echo)", "one of them"]),
    "no model": ("submit --prompt {a} -i -", ["no model", "-m", "OPENAI_MODEL"]),
    "a prompt and an embedding": (f"{ASK} --prompt {{a}} --embed a", ["not both"]),
    "a way into a value": (f"{ASK} --prompt {{a.__class__}}", ["{a.__class__}", "plain name"]),
    "no such column": (
        "estimate -m m -i - --prompt {subject}",
        ["input 0: no field subject", "has Betreff, Text"],
    ),
    "no such column to embed": ("estimate -i - --embed text", ["no field text", "Betreff, Text"]),
    "no file of a prompt": (f"{ASK} --prompt @absent.txt", ["--prompt", "'absent.txt'", "No such"]),
    "no file of a schema": (f"{ASK} --prompt a --schema absent.json", ["--schema", "absent.json"]),
    "a schema in Latin-1": (f"{ASK} --prompt a --schema latin.json", ["latin.json", "not UTF-8"]),
    "a schema that is not JSON": (f"{ASK} --prompt a --schema bad.json", ["bad.json", "not JSON"]),
    "a schema of a list": (f"{ASK} --prompt a --schema list.json", ["'list.json'", "an object"]),
    "what providers refuse": (
        f"{ASK} --prompt a --schema not.json",
        ["refuse not", "$.properties.a", "leave it out"],
    ),
    "an unknown type": (
        f"{ASK} --prompt a --schema a:text",
        ["unknown type 'text'", "str, int, float, bool, list", "or name a file"],
    ),
    "a schema without a prompt": (f"{ASK} echo --schema a:int", ["--schema", "--prompt"]),
    "a system message alone": (f"{ASK} --system x", ["--system", "--prompt"]),
    "a model for a chain": ("submit echo -m m -i -", ["--model", "--prompt", "has its own"]),
    "an estimate of nothing": ("estimate -i -", ["CHAIN", "--prompt"]),
    "a model for an estimate": ("estimate x -m m -i -", ["--model", "has its own"]),
    "a sample of requests": ("run -i - -o x.jsonl --sample 5", ["--sample", "--prompt"]),
    "a sample through the provider": (
        "run --prompt a -m m -i - -o x.jsonl --sample 5 --mode provider",
        ["--sample", "--mode"],
    ),
    "requests of a prompt": (
        "run --prompt a -m m --format openai -i - -o x.jsonl",
        ["--format openai", "prompt"],
    ),
    "no file of chains": ("submit x --chains ./absent.py -i -", ["no file './absent.py'"]),
    "chains with a taken name": (
        "submit x --chains ./json.py -i -",
        ["'json.py'", "another module", "rename it"],
    ),
    "chains that nobody can import": (
        "submit x --chains ./my-chains.py -i -",
        ["'my-chains.py'", "rename it"],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_it_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHORD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.path", [*sys.path])
    for file, text in {
        "list.json": "[]",
        "bad.json": "{",
        "not.json": '{"type": "object", "properties": {"a": {"not": {}}}}',
        "json.py": "",
        "my-chains.py": "",
    }.items():
        Path(file).write_text(text)
    Path("latin.json").write_bytes('"é"'.encode("latin-1"))
    command, says = REFUSALS[name]
    answer = CliRunner().invoke(program, command.split(), input=ROW)
    assert answer.exit_code == 2, answer.output
    [line] = answer.stderr.splitlines()
    for words in says:
        assert words in line
    assert not Path("home").exists(), "nothing was begun"


def test_a_schema_may_be_as_a_request_has_it(tmp_path: Path) -> None:
    schema = fields("a:int")
    for number, found in enumerate(
        [
            schema,
            {"name": "x", "strict": True, "schema": schema},
            {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        ]
    ):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(found))
        assert schema_in(str(path)) == schema


def _csv(shell: Shell, rows: int) -> None:
    lines = [f"ticket {n},{'down' if n % 2 else 'up'}\n" for n in range(rows)]
    (shell.folder / "tickets.csv").write_text("".join(["subject,Ticket body\n", *lines]))


def _answers(shell: Shell) -> list[dict[str, str]]:
    with (shell.folder / "answers.csv").open() as file:
        return list(csv.DictReader(file))


TYPED = (
    *("run", "--prompt", "Triage {subject}: {Ticket body}", *SMALL),
    *("--schema", "urgency:low|high,score:float", "-i", "tickets.csv", "-o", "answers.csv"),
)


def test_without_a_terminal_it_stops_after_the_sample(shell: Shell, provider: OpenAIServer) -> None:
    _csv(shell, 30)
    found = shell.run(*TYPED, "--sample", "5")
    assert found.code == 5, found.err
    assert "Stopped after the sample, as nobody can be asked: --yes runs all 30 rows" in found.err
    assert "ticket 4" in found.err
    assert "ticket 5" not in found.err
    assert "cost unknown without prices (BATCHORD_PRICES)" in found.err
    assert len(provider.requests) == 5
    assert not (shell.folder / "answers.csv").exists()


def test_a_sample_is_shown_with_its_cost_and_is_not_paid_again(
    shell: Shell, provider: OpenAIServer
) -> None:
    _csv(shell, 30)
    (shell.folder / "prices.json").write_text('{"test-model": {"input": 1000, "output": 1000}}')
    env = {"BATCHORD_PRICES": str(shell.folder / "prices.json")}
    (shell.folder / "system.txt").write_text("Be brief.\n")
    more = ("--sample", "5", "--system", "@system.txt")
    with Terminal(shell, *TYPED, *more, env=env, columns=160) as terminal:
        terminal.wait_for("Run all 30 rows?")
        assert "All 30 rows: about " in terminal.text
        assert "tokens out, about $" in terminal.text
        assert len(provider.requests) == 5
        terminal.type("y\n")
        assert terminal.wait() == 0, terminal.text
    assert len(provider.requests) == 30, "those of the sample, and the others"
    assert "Be brief.\nTriage ticket 7: down" in {each.text for each in provider.requests}
    assert [row["subject"] for row in _answers(shell)] == [f"ticket {n}" for n in range(30)]
