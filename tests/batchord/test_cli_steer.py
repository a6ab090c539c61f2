"""`batchord pause`, `resume` and `cancel`, as a person on call types them."""

from collections.abc import Iterator

import pytest

from tests.support.cli_harness import Shell
from tests.support.harness import Deployment

pytestmark = pytest.mark.timeout(60)

_MINE = "from batchord.chains import register\nregister('shout', str.upper)\n"


@pytest.fixture
def shell(deployment: Deployment) -> Iterator[Shell]:
    shell = Shell(
        deployment.folder / "shell", BATCHORD_REDIS_URL=deployment.url, BATCHORD_CHAINS="mine"
    )
    shell.module("mine", _MINE)
    yield shell
    shell.close()


def test_a_batch_is_paused_resumed_and_cancelled(shell: Shell, deployment: Deployment) -> None:
    (shell.folder / "in.jsonl").write_text('"a"\n"b"\n"c"\n')
    options = ["--completion-window", "24h", "--priority", "3", "--items-per-task", "2"]
    submitted = shell.run("submit", "shout", "-i", "in.jsonl", *options, "--json")
    assert submitted.code == 0, submitted.err
    batch_id = submitted.json["id"]
    assert submitted.json["expires_at"] is not None
    for command, status in (
        ("pause", "paused"),
        ("resume", "in_progress"),
        ("cancel", "cancelled"),
    ):
        answer = shell.run(command, batch_id, "--json")
        assert (answer.code, answer.err) == (0, "")
        assert answer.json["status"] == status
    answer = shell.run("cancel", batch_id)
    assert (answer.code, answer.out) == (2, "")
    assert "has ended, cancelled" in answer.err
    assert shell.run("watch", batch_id, "--json").code == 4
    assert shell.run("results", batch_id).out.count('"cancelled"') == 3


@pytest.mark.parametrize("command", ["pause", "resume", "cancel", "retry"])
def test_an_unknown_batch_is_refused(shell: Shell, command: str) -> None:
    answer = shell.run(command, "batch_" + "0" * 24)
    assert answer.code == 2
    assert "unknown batch" in answer.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--items-per-task", "0"),
        ("--items-per-task", "all"),
        ("--priority", "10"),
        ("--completion-window", "soon"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(shell: Shell, option: str, value: str) -> None:
    (shell.folder / "in.jsonl").write_text('"a"\n')
    answer = shell.run("submit", "shout", "-i", "in.jsonl", option, value)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
