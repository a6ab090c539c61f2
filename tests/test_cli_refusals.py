"""Wrong usage and bad input: one line that names the cure, exit code 2, and nothing is done."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli_harness import CHAINS, Answer, Shell
from tests.conftest import Deploy
from tests.harness import Deployment

DOUBLE = ("submit", "double", "--chains", CHAINS, "-i", "-")
NESTED = "[" * 101 + "]" * 101


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Where no Redis is."""
    shell = Shell(tmp_path / "shell")
    yield shell
    shell.close()


@pytest.fixture(scope="module")
def redis(deploy_for_module: Deploy) -> Deployment:
    """A Redis without workers."""
    return deploy_for_module()


@pytest.fixture(scope="module")
def served(redis: Deployment) -> Iterator[Shell]:
    """Where that Redis is."""
    shell = Shell(redis.folder / "shell", BATCHORD_REDIS_URL=redis.url)
    yield shell
    shell.close()


def refused(answer: Answer, *parts: str) -> None:
    """Check the one line, and that it says all this."""
    assert answer.code == 2, answer
    assert answer.out == ""
    assert answer.err.count("\n") == 1, answer.err
    assert answer.err.startswith("Error: ")
    for part in parts:
        assert part in answer.err


@pytest.mark.parametrize(
    ("chain", "lines", "parts"),
    [
        ("repeat", [{"text": "x"}, {"times": 2}], ["input 1", "text"]),
        ("echo", ["NaN"], ["input 0", "not JSON", "not JSON compliant"]),
        ("echo", [1, NESTED], ["input 1", "too deep", "100 levels", "flatten"]),
        ("echo", ["[" * 200_000], ["line 1 is not JSON"]),
        ("echo", ["", 1, "", "{'a': 1}"], ["line 4 is not JSON"]),
        ("echo", [{"input": 1, "custom_id": "a"}, {"input": 2}], ["input 1", "custom_id"]),
        ("echo", [1, {"input": 2, "custom_id": "a"}], ["input 1", "custom_id"]),
        ("echo", [], ["no inputs"]),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_their_place(
    served: Shell,
    redis: Deployment,
    chain: str,
    lines: list[object],
    parts: list[str],
) -> None:
    path = served.write("bad.jsonl", lines)

    answer = served.run("submit", chain, "--chains", CHAINS, "-i", path)

    refused(answer, *parts)
    assert not redis.keys_of("batch_")


def test_an_input_that_is_too_large_is_refused_by_the_limit_that_is_set(served: Shell) -> None:
    answer = served.run(
        *("submit", "echo", "--chains", CHAINS, "-i", "-"),
        stdin=json.dumps("x" * 100),
        env={"BATCHORD_MAX_INPUT_BYTES": "50"},
    )

    refused(answer, "input 0", "102 bytes", "50", "BATCHORD_MAX_INPUT_BYTES")


def test_a_file_that_is_not_utf_8_is_refused(served: Shell) -> None:
    (served.folder / "latin.jsonl").write_bytes('"é"\n'.encode("latin-1"))

    refused(
        served.run("submit", "echo", "--chains", CHAINS, "-i", "latin.jsonl"), "UTF-8", "convert it"
    )


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (("submit", "nope", "--chains", CHAINS, "-i", "-"), ["'nope'", "double"]),
        (("submit", "x", "--chains", "no.such.module", "-i", "-"), ["'no.such.module'", "No mod"]),
        (("submit", "x", "--chains", "broken", "-i", "-"), ["'broken'", "KeyError", "no key"]),
        (("submit", "double", "-i", "absent.jsonl"), ["absent.jsonl", "submit --help"]),
        ((*DOUBLE, "--metadata", "team"), ["--metadata", "KEY=VALUE"]),
        (("list", "--nope"), ["--nope", "batchord list --help"]),
        (("--nope",), ["--nope", "batchord --help"]),
        (("nope",), ["'nope'", "batchord --help"]),
        (("list", "--after", "batch_0"), ["unknown batch 'batch_0'", "check the id"]),
        (("results", "../../etc"), ["unknown batch", "check the id"]),
        (("worker", "--loglevel", "loud"), ["--loglevel", "worker --help"]),
    ],
)
def test_wrong_usage_is_refused_in_one_line(
    served: Shell, args: tuple[str, ...], parts: list[str]
) -> None:
    served.module("broken", "raise KeyError('no key\\nin two lines')")

    refused(served.run(*args, stdin="1\n"), *parts)


@pytest.mark.parametrize(
    ("command", "env", "parts"),
    [
        ("list", {}, ["no Redis", "BATCHORD_REDIS_URL", "batchord up"]),
        ("status batch_1", {}, ["no Redis", "batchord up"]),
        ("worker", {}, ["no Redis", "batchord up"]),
        (
            "list",
            {"BATCHORD_REDIS_URL": "redis://127.0.0.1:1/0"},
            ["cannot reach Redis at 127.0.0.1:1", "start it", "BATCHORD_REDIS_URL"],
        ),
        ("list", {"BATCHORD_REDIS_URL": "127.0.0.1"}, ["BATCHORD_REDIS_URL", "redis://"]),
        ("list", {"BATCHORD_SHARD_SIZE": "0"}, ["BATCHORD_SHARD_SIZE", "greater than"]),
    ],
)
def test_what_the_environment_lacks_is_named(
    shell: Shell, command: str, env: Mapping[str, str], parts: list[str]
) -> None:
    refused(shell.run(*command.split(), env=env), *parts)


def test_a_wrong_password_is_named_and_not_shown(served: Shell, redis: Deployment) -> None:
    user = ["ACL", "SETUSER", "guarded", "on", ">right", "~*", "&*", "+@all"]
    redis.redis.execute_command(*user)
    url = redis.url.replace("redis://", "redis://guarded:wr0ng@")

    for command in ("list", f"run double --chains {CHAINS} -i - -o out.jsonl"):
        answer = served.run(*command.split(), stdin="1\n", env={"BATCHORD_REDIS_URL": url})

        refused(answer, "refuses us", "check user and password in BATCHORD_REDIS_URL")
        assert "wr0ng" not in answer.err


@pytest.mark.parametrize(
    ("args", "stdin", "parts"),
    [
        (("run", "nope", "--chains", CHAINS), "1\n", ["'nope'", "known: ", "double"]),
        (("run", "nope"), "1\n", ["'nope'", "known: none", "--chains"]),
        (("run", "double", "--chains", CHAINS), "1\n2\n{\n", ["line 3 is not JSON"]),
    ],
)
def test_a_refused_run_leaves_the_output_of_the_last_one_alone(
    shell: Shell, args: tuple[str, ...], stdin: str, parts: list[str]
) -> None:
    kept = shell.write("out.jsonl", ["kept"])

    answer = shell.run(*args, "-i", "-", "-o", kept, "--processes", "1", stdin=stdin)

    refused(answer, *parts)
    assert kept.read_text() == "kept\n"
    assert [each.name for each in shell.folder.iterdir()] == ["out.jsonl"]
    shell.check_nothing_is_left(timeout=0)
    assert not list(shell.tmp.iterdir())


@pytest.mark.parametrize("target", ["absent/out.jsonl", "/dev/null"])
def test_an_output_that_could_not_be_written_is_refused_before_anything_runs(
    shell: Shell, target: str
) -> None:
    shell.module("steps", "raise AssertionError('it got as far as here')")

    refused(shell.run("run", "x", "--chains", "steps", "-i", "-", "-o", target), "-o")
