"""`batchord --help`: commands in groups, whole sentences, and a first command to type."""

import subprocess

import pytest

from batchord.cli import _GROUPS, program
from tests.support.cli_harness import BIN


def test_help_is_in_groups_of_whole_sentences_with_a_first_command() -> None:
    text = subprocess.run([BIN / "batchord", "--help"], capture_output=True, text=True).stdout
    assert "..." not in text.replace("[ARGS]...", "")
    assert "batchord run triage --chains triage -i tickets.jsonl" in text
    assert "_BATCHORD_COMPLETE=bash_source" in text
    for title in _GROUPS:
        assert f"\n{title}:\n" in text
    assert {name for names in _GROUPS.values() for name in names} <= set(program.commands)


@pytest.mark.parametrize("name", program.commands)
def test_the_first_sentence_of_a_command_is_whole(name: str) -> None:
    assert program.commands[name].help, "it has help"
    said = program.commands[name].get_short_help_str(limit=1_000)
    assert said[0].isupper()
    assert "\n" not in said
