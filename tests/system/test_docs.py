"""Commands and code of the README and the docs, run as they stand."""

import csv
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchord.ledger.settings import Settings
from tests.support.openai_server import OpenAIServer
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
BATCHORD = Path(sys.executable).with_name("batchord")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path, server: OpenAIServer) -> dict[str, str]:
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("BATCHORD_", "OPENAI_"))}
    return {
        **outside,
        "BATCHORD_HOME": str(tmp_path / "home"),
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_API_KEY": "sk-test-0123456789",
    }


@pytest.mark.timeout(120)
def test_the_one_line_of_the_readme_makes_300_tickets_typed_columns(
    tmp_path: Path, environment: dict[str, str], server: OpenAIServer
) -> None:
    [command] = [each for each in blocks("README.md", "sh") if "--prompt" in each]
    lines = [f"ticket {n},body {n}\n" for n in range(300)]
    (tmp_path / "tickets.csv").write_text("".join(["subject,body\n", *lines]))
    path = f"{BATCHORD.parent}:{environment['PATH']}"
    ran = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env={**environment, "PATH": path},
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["subject"] for row in rows] == [f"ticket {n}" for n in range(300)]
    assert {row["urgency"] for row in rows} <= {"low", "high"}
    assert all(row["reason"] for row in rows)
    assert {row["status"] for row in rows} == {"succeeded"}
    assert len(server.requests) == 300
    assert {request.body["model"] for request in server.requests} == {"gpt-5-mini"}


@pytest.mark.timeout(90)
def test_the_ten_lines_of_the_readme_do_what_it_says(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    module, app = blocks("README.md", "python")
    (tmp_path / "triage.py").write_text(module)
    (tmp_path / "app.py").write_text(app)
    up = subprocess.Popen(
        [BATCHORD, "up", "--chains", "triage", "--flower-port", "0", "--processes", "1"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:

        def announced() -> bool:
            command: list[str | Path] = [BATCHORD, "chains", "--json"]
            found = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            return "triage" in found.stdout

        wait_until(announced, what="the chain to be announced", timeout=40)
        said = subprocess.run(
            [sys.executable, "app.py"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=40,
        ).stdout.splitlines()
    finally:
        up.terminate()
        up.wait(20)
    shown = next(block for block in blocks("README.md", "text") if block.startswith("completed"))
    expected = shown.splitlines()
    assert said[0] == expected[0]
    assert [line.split(" ", 2)[:2] for line in said] == [
        line.split(" ", 2)[:2] for line in expected
    ]
    assert said[3] == expected[3]


def test_the_example_of_the_chains_page_runs(
    tmp_path: Path, environment: dict[str, str], server: OpenAIServer
) -> None:
    example = blocks("docs/chains.md", "python")[0]
    program = example + "\nprint(len(answers), all(isinstance(each, str) for each in answers))\n"
    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**environment, "OPENAI_MODEL": "test-model"},
        capture_output=True,
        text=True,
        check=True,
        timeout=40,
    ).stdout
    assert said == "2 True\n"
    assert len(server.requests) >= 4  # documents, questions, two chats


@pytest.mark.timeout(120)
def test_the_tables_of_the_tables_page_become_what_it_says(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    page = "docs/tables.md"
    module, _ = blocks(page, "python")
    (tmp_path / "triage.py").write_text(module)
    [tickets] = blocks(page, "csv")
    (tmp_path / "tickets.csv").write_text(tickets)
    [command] = [each for each in blocks(page, "sh") if each.startswith("batchord run")]
    run = [*shlex.split(command)[1:], "--processes", "1", "--json"]

    said = subprocess.run(
        [BATCHORD, *run],
        cwd=tmp_path,
        env={**environment, "OPENAI_MODEL": "test-model"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == 3, said.stderr
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert blocks(page, "text")[0].strip().split(",") == list(rows[0])
    assert [(row["id"], row["error_code"]) for row in rows] == [
        ("007", ""),
        ("008", "prompt_field_missing"),
        ("009", ""),
    ]
    shown = re.search(r"`(line 4: [^`]*)`", (ROOT / page).read_text())
    assert shown is not None
    assert rows[1]["error"].startswith(shown[1])


def test_every_setting_is_on_the_running_page() -> None:
    page = (ROOT / "docs/running.md").read_text()
    named = set(re.findall(r"`BATCHORD_([A-Z_]+)` \|", page))
    assert named == {name.upper() for name in Settings.model_fields}


def test_the_readme_s_two_commands_are_targets_of_the_makefile() -> None:
    first = blocks("README.md", "sh")[0]
    assert first.startswith("pip install ")
    commands = re.findall(r"^make (\w+)", first, re.MULTILINE)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert commands == ["demo", "test"]
    assert set(commands) <= set(targets)
    assert "make test" in (ROOT / ".ci/run").read_text().splitlines()
