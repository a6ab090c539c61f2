"""The examples of evaluating and indexing run as they stand, on workers that know none of it."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.compare_prompts import compare, summary
from examples.index_documents import chunks, search, update
from tests.conftest import Deploy
from tests.support.harness import Deployment, provider_env
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
ROWS = [{"question": f"What is {n}?"} for n in range(8)]
PROMPTS = {"short": "In one word: {question}", "long": "At length: {question}"}


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as started:
        yield started


@pytest.fixture(scope="module")
def working(
    deploy_for_module: Deploy, server: OpenAIServer, tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    deployment = deploy_for_module(alike_limit=0)
    prices = tmp_path_factory.mktemp("prices") / "prices.json"
    prices.write_text('{"test-model": {"input": 1, "output": 1}}')
    env = {"BATCHORD_CHAINS": "", "BATCHORD_PRICES": str(prices)}
    deployment.start_worker(env={**provider_env(server), **env})
    return deployment


@pytest.fixture(autouse=True)
def _asks_the_server(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.reset()
    for name, value in provider_env(server).items():
        monkeypatch.setenv(name, value)


def test_two_prompts_are_compared_side_by_side_and_only_what_changes_is_paid(
    working: Deployment, server: OpenAIServer, tmp_path: Path
) -> None:
    server.fail_next(400, match="At length: What is 3?")
    table = compare(working.client, ROWS, PROMPTS)
    assert [row["question"] for row in table] == [row["question"] for row in ROWS]
    for number, row in enumerate(table):
        assert row["short_answer"] == f"echo: In one word: What is {number}?"
        assert row["short_cost_usd"] > 0
        assert 1 <= row["short_score"] <= 5
        assert ("long_score" in row) == (number != 3)
    assert table[3]["long_error"] == "bad_request"
    assert len(server.requests) == 8 + 8 + 8 + 7, "answers and grades"
    told = summary(table, list(PROMPTS)).splitlines()
    assert told[1].split()[:1] + told[1].split()[2:3] == ["short", "0"]
    assert told[2].split()[2] == "1"

    server.reset()
    changed = {**PROMPTS, "long": "In ten pages: {question}"}
    compare(working.client, ROWS, changed)
    assert len(server.requests) == 8 + 8, "the other prompt's answers and grades are known"


def test_the_command_writes_one_table(
    working: Deployment, server: OpenAIServer, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    for name, text in PROMPTS.items():
        (tmp_path / f"{name}.txt").write_text(text)
    names = [str(tmp_path / name) for name in ("rows.jsonl", "short.txt", "long.txt")]
    command = ["examples.compare_prompts", *names, "-o", str(tmp_path / "table.csv")]
    env = {"PYTHONPATH": str(ROOT), **provider_env(server)}
    ran = working.start(command, "compare", env=env)
    assert ran.wait(60) == 0, ran.log
    assert "long" in ran.log
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {"short_answer", "short_score", "short_cost_usd", "long_score"} <= rows[0].keys()


def test_only_new_chunks_are_embedded_and_lost_ones_are_taken_out(
    working: Deployment, server: OpenAIServer, tmp_path: Path
) -> None:
    documents, index = tmp_path / "docs", tmp_path / "index"
    documents.mkdir()
    for name in ("a", "b"):
        text = "\n\n".join(f"{name} {number} " + "x" * 600 for number in range(3))
        (documents / f"{name}.md").write_text(text)
    (documents / "not.bin").write_bytes(b"\xff")

    def run() -> tuple[tuple[int, int, int], int]:
        server.reset()
        done = update(working.client, documents, index)
        texts = [text for request in server.requests for text in request.body["input"]]
        return (done.embedded, done.removed, done.total), len(texts)

    assert run() == ((6, 0, 6), 6)
    assert run() == ((0, 0, 6), 0)
    (documents / "a.md").unlink()
    (documents / "c.txt").write_text("c is new")
    assert run() == ((1, 3, 4), 1)
    (documents / "b.md").rename(documents / "d.md")
    assert run() == ((0, 0, 4), 0)
    for chunk in chunks(documents):
        assert search(index, chunk.text, k=1)[0].text == chunk.text
    assert len(search(index, "anything", k=10)) == 4
    (documents / "a.md").write_text("\n\n".join(f"a {n} " + "x" * 600 for n in range(3)))
    assert run() == ((3, 0, 7), 0), "what was paid for once is in the cache"
