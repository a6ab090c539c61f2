"""Wrong usage and bad input: one line that names the cure, exit code 2, and nothing is done."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import Deploy
from tests.support.cli_harness import CHAINS, Answer, Shell
from tests.support.harness import Deployment


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


@dataclass(frozen=True)
class Case:
    """A command that must be refused, and what its one line must name."""

    command: str
    parts: Sequence[str]
    stdin: str = "1\n"
    env: Mapping[str, str] = field(default_factory=dict)
    #: Whether it finds a Redis.
    served: bool = True


ECHO = f"submit echo --chains {CHAINS} -i -"
NO_REDIS = ("no Redis", "BATCHORD_REDIS_URL", "batchord up")
NESTED = "[" * 101 + "]" * 101

CASES = {
    "the type of the chain": Case(
        f"submit repeat --chains {CHAINS} -i -",
        ["input 1", "text"],
        stdin='{"text": "x"}\n{"times": 2}\n',
    ),
    "NaN": Case(ECHO, ["input 0", "not JSON compliant"], stdin="NaN"),
    "too deep": Case(ECHO, ["input 1", "too deep", "100", "flatten"], stdin=f"1\n{NESTED}\n"),
    "far too deep": Case(ECHO, ["line 1 is not JSON"], stdin="[" * 200_000),
    "too large": Case(
        ECHO,
        ["input 0", "102 bytes", "50", "BATCHORD_MAX_INPUT_BYTES"],
        stdin=f'"{"x" * 100}"',
        env={"BATCHORD_MAX_INPUT_BYTES": "50"},
    ),
    "not JSON": Case(ECHO, ["line 4 is not JSON"], stdin="\n1\n\n{'a': 1}\n"),
    "an id is missing": Case(
        ECHO,
        ["input 1", "custom_id"],
        stdin='{"input": 1, "custom_id": "a"}\n{"input": 2}\n',
    ),
    "an id too many": Case(
        ECHO, ["input 1", "custom_id"], stdin='1\n{"input": 2, "custom_id": "a"}\n'
    ),
    "nothing": Case(ECHO, ["no inputs"], stdin="\n"),
    "not UTF-8": Case(f"submit echo --chains {CHAINS} -i latin.jsonl", ["not UTF-8", "convert it"]),
    "no such file": Case(
        f"submit echo --chains {CHAINS} -i absent.jsonl", ["absent.jsonl", "submit --help"]
    ),
    "no such chain": Case(f"submit nope --chains {CHAINS} -i -", ["'nope'", "double", "--chains"]),
    "no such module": Case("submit x --chains no.such -i -", ["'no.such'", "No module"]),
    "a broken module": Case("submit x --chains broken -i -", ["'broken'", "KeyError", "no key"]),
    "no pair": Case(f"{ECHO} --metadata team", ["--metadata", "KEY=VALUE"]),
    "no budget": Case(f"{ECHO} --budget-usd 0", ["budget", "usd", "above 0"]),
    "no tokens": Case(f"{ECHO} --budget-tokens 0", ["budget", "tokens", "at least 1"]),
    "no such option": Case("list --nope", ["--nope", "batchord list --help"]),
    "no such option of all": Case("--nope", ["--nope", "batchord --help"]),
    "no such command": Case("nope", ["'nope'", "batchord --help"]),
    "no such level": Case("worker --loglevel loud", ["--loglevel", "worker --help"]),
    "no such batch": Case("list --after batch_0", ["unknown batch 'batch_0'", "check the id"]),
    "no id at all": Case("results ../../etc", ["unknown batch", "check the id"]),
    "no Redis to list": Case("list", NO_REDIS, served=False),
    "no Redis to ask": Case("status batch_1", NO_REDIS, served=False),
    "no Redis to work for": Case(f"worker --chains {CHAINS}", NO_REDIS, served=False),
    "no Redis there": Case(
        "list",
        ["cannot reach Redis at 127.0.0.1:1", "start it", "BATCHORD_REDIS_URL"],
        env={"BATCHORD_REDIS_URL": "redis://127.0.0.1:1/0"},
    ),
    "no URL": Case(
        "list", ["BATCHORD_REDIS_URL", "redis://"], env={"BATCHORD_REDIS_URL": "127.0.0.1"}
    ),
    "a bad setting": Case(
        "list", ["BATCHORD_SHARD_SIZE", "greater than"], env={"BATCHORD_SHARD_SIZE": "0"}
    ),
    "a folder that is not there": Case(
        "run x --chains broken -i - -o absent/out.jsonl", ["-o", "absent", "make it"]
    ),
    "no file to replace": Case(
        "run x --chains broken -i - -o /dev/null", ["-o", "/dev/null", "another file"]
    ),
    "a matrix of answers": Case("run -i - -o x.npy", ["npy", "CHAIN", "vectors"]),
    "errors of no requests": Case(
        "run x -i - -o x.jsonl --errors y.jsonl", ["--errors", "--format openai"]
    ),
    "one file for two": Case("run -i - -o x.jsonl --errors x.jsonl", ["--errors", "same file"]),
    "a model for a chain": Case("run x -i - -o x.jsonl --model m", ["--model", "has its own"]),
    "no request": Case("submit -i -", ["line 1", "custom_id", "CHAIN"], stdin="1\n"),
    "a run without its chains": Case(
        "run nope -i - -o out.jsonl", ["'nope'", "known: none", "--chains"], served=False
    ),
    "a run without its chain": Case(
        f"run nope --chains {CHAINS} -i - -o out.jsonl", ["'nope'", "double"], served=False
    ),
}


@pytest.fixture(scope="module")
def answers(
    served: Shell, redis: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Answer]]:
    """The answers to all cases: asked side by side, as each takes half a second."""
    alone = Shell(tmp_path_factory.mktemp("alone") / "shell")
    for shell in (served, alone):
        shell.module("broken", "raise KeyError('no key\\nin two lines')")
        shell.write("out.jsonl", ["kept"])
        (shell.folder / "latin.jsonl").write_bytes('"é"\n'.encode("latin-1"))

    def ask(case: Case) -> Answer:
        shell = served if case.served else alone
        return shell.run(*case.command.split(), stdin=case.stdin, env=case.env)

    with ThreadPoolExecutor(3) as pool:
        yield dict(zip(CASES, pool.map(ask, CASES.values()), strict=True))
    for shell in (served, alone):
        assert (shell.folder / "out.jsonl").read_text() == "kept\n"
        assert len(list(shell.folder.glob("*out.jsonl*"))) == 1
        assert not list(shell.tmp.iterdir())
    assert not redis.keys_of("batch_")
    alone.close()


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_one_line_that_names_the_cure(
    answers: dict[str, Answer], name: str
) -> None:
    refused(answers[name], *CASES[name].parts)


def test_a_wrong_password_is_named_and_not_shown(served: Shell, redis: Deployment) -> None:
    user = ["ACL", "SETUSER", "guarded", "on", ">right", "~*", "&*", "+@all"]
    redis.redis.execute_command(*user)
    url = redis.url.replace("redis://", "redis://guarded:wr0ng@")

    for command in ("list", f"run double --chains {CHAINS} -i - -o out.jsonl"):
        answer = served.run(*command.split(), stdin="1\n", env={"BATCHORD_REDIS_URL": url})

        refused(answer, "refuses us", "check user and password in BATCHORD_REDIS_URL")
        assert "wr0ng" not in answer.err


def test_a_bad_line_far_down_leaves_nothing_but_the_output_of_the_last_run(shell: Shell) -> None:
    kept = shell.write("out.jsonl", ["kept"])
    lines = [*map(str, range(1_500)), "{"]

    answer = shell.run(
        *("run", "double", "--chains", CHAINS, "--processes", "1", "-i", "-", "-o", kept),
        stdin="\n".join(lines),
    )

    refused(answer, "line 1501 is not JSON")
    assert kept.read_text() == "kept\n"
    assert [each.name for each in shell.folder.iterdir()] == ["out.jsonl"]
    shell.check_nothing_is_left(timeout=0)
    assert not list(shell.tmp.iterdir())
