"""`batchord --help`: commands in groups, whole sentences, and a first command to type."""

import subprocess
import sys
from importlib import import_module

import pytest

from batchord.cli import program
from batchord.command_table import GROUPS
from tests.support.cli_harness import BIN


def test_help_is_in_groups_of_whole_sentences_with_a_first_command() -> None:
    text = subprocess.run([BIN / "batchord", "--help"], capture_output=True, text=True).stdout
    assert "..." not in text.replace("[ARGS]...", "")
    assert "batchord run triage --chains triage -i tickets.jsonl" in text
    assert "_BATCHORD_COMPLETE=bash_source" in text
    for title in GROUPS:
        assert f"\n{title}:\n" in text
    assert {name for names in GROUPS.values() for name in names} <= set(program.commands)


@pytest.mark.parametrize("name", program.commands)
def test_the_first_sentence_of_a_command_is_whole(name: str) -> None:
    assert program.commands[name].help, "it has help"
    said = program.commands[name].get_short_help_str(limit=1_000)
    assert said[0].isupper()
    assert "\n" not in said


@pytest.mark.parametrize("name", program.commands)
def test_the_list_of_commands_says_what_their_help_says(name: str) -> None:
    said = {name: said for each in GROUPS.values() for name, (_, said) in each.items()}
    assert said[name] == program.commands[name].get_short_help_str(limit=1_000)


def test_each_command_of_a_module_is_in_the_list() -> None:
    modules = {module for each in GROUPS.values() for module, _ in each.values()}
    found = {
        command.name
        for module in modules
        for command in import_module(f"batchord.commands.{module}").COMMANDS
    }
    assert found == set(program.commands)


_TELLS = "atexit.register(lambda: print(*sys.modules.keys() & {!r}, file=sys.stderr, end=''))"
_MAIN = "from batchord.cli import main\n"

#: What takes long to import, and what it is for.
PROVIDER = {"openai", "httpx2", "aiohttp", "langchain_core", "numpy"}
WORKER = {"celery.worker", "celery.apps.worker", "flower", "tornado", "starlette", "pyarrow"}
LEDGER = {"celery", "kombu", "redis", "pydantic", "rich", "jsonschema", "asyncio"}


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import batchord", PROVIDER | WORKER | LEDGER),
        ("sys.argv[1:] = ['--help']; main()", PROVIDER | WORKER | LEDGER),
        ("sys.argv[1:] = ['--version']; main()", PROVIDER | WORKER | LEDGER),
        *(
            (f"sys.argv[1:] = ['{name}', '--help']; main()", PROVIDER | WORKER | {"jsonschema"})
            for name in ("run", "submit", "list", "worker")
        ),
        ("from batchord import Client, register", PROVIDER | WORKER | {"jsonschema"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_needed_is_not_imported(code: str, without: set[str]) -> None:
    script = f"import atexit, sys\n{_TELLS.format(without)}\n{_MAIN if 'main()' in code else ''}"
    ended = subprocess.run(
        [sys.executable, "-c", f"{script}{code}"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0
    assert ended.stderr == ""
