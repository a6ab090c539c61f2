"""`batchord up`, and the commands that find it without being told where it is."""

import base64
import fcntl
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from tests.support.cli_harness import CHAINS, Running, Shell, results
from tests.support.harness import connect
from tests.support.valkey import free_port
from tests.support.waiting import wait_until

UP = ("up", "--chains", CHAINS, "--processes", "1", "--concurrency", "4")
READY = "Ctrl-C ends it all"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, Running, int]]:
    """One that runs for all tests of this module, with Flower on a port."""
    shell, port = Shell(tmp_path_factory.mktemp("up") / "shell"), free_port()
    up = shell.start(*UP, "--flower-port", port)
    up.wait_for(READY)
    yield shell, up, port
    up.send(signal.SIGINT)
    assert up.wait() == 0, up.err
    shell.check_nothing_is_left(timeout=0)
    assert not _answers(port)
    shell.close()


@pytest.fixture
def shell(running: tuple[Shell, Running, int]) -> Shell:
    return running[0]


@pytest.fixture(scope="module")
def batch_id(running: tuple[Shell, Running, int]) -> str:
    """A batch of five items that has ended; two have failed, with different codes."""
    shell = running[0]
    shell.write(
        "five.jsonl",
        [
            {
                "input": {"value": f"value {i}", "fail": {1: "later", 4: "chain"}.get(i)},
                "custom_id": f"[bold]{i}",
            }
            for i in range(5)
        ],
    )
    answer = shell.run(
        *("submit", "may-fail", "-i", "five.jsonl", "--metadata", "team=a", "--json"),
    )
    assert answer.code == 0, answer.err
    assert answer.json["chain"] == "may-fail"
    assert answer.json["metadata"] == {"team": "a"}
    found: str = answer.json["id"]
    watched = shell.run("watch", found)
    assert watched.code == 3
    assert f"{found} completed · 5 items: 3 succeeded, 2 failed" in watched.out
    assert "may-fail: 5/5 done, 2 failed" in watched.err
    assert "\x1b" not in watched.out + watched.err
    return found


def test_the_chains_of_its_workers_are_known_to_all(shell: Shell) -> None:
    found = [json.loads(line) for line in shell.run("chains", "--json").out.splitlines()]
    assert {"double", "may-fail"} <= {each["name"] for each in found}
    assert [each["input_schema"] for each in found if each["name"] == "double"] == [
        {"type": "integer"}
    ]

    shell.module("mine", "from batchord.chains import register\nregister('mine', len)\n")
    table = shell.run("chains", "--chains", "mine").out
    assert re.search(r"^double +│ integer", table, re.M)
    assert re.search(r"^mine +│ any", table, re.M), "ours beside theirs"


def test_the_state_and_the_results_of_a_batch_are_read_by_its_id(
    shell: Shell, batch_id: str
) -> None:
    status = shell.run("status", batch_id, "--json")
    assert status.code == 3
    assert status.json["status"] == "completed"
    assert status.json["request_counts"]["failed"] == 2

    shown = shell.run("results", batch_id)
    assert (shown.code, shown.err) == (0, "")
    found = [json.loads(line) for line in shown.out.splitlines()]
    assert [each["custom_id"] for each in found] == [f"[bold]{i}" for i in range(5)]
    assert [each["output"] for each in found if each["status"] == "succeeded"] == [
        "value 0",
        "value 2",
        "value 3",
    ]


def test_failed_items_are_listed_and_counted_by_code(shell: Shell, batch_id: str) -> None:
    table = shell.run("errors", batch_id)
    assert table.code == 0
    assert re.search(r"^1 +│ \[bold\]1 +│ rate_limited +│ may_fail +│ slow down", table.out, re.M)

    listed = [json.loads(line) for line in shell.run("errors", batch_id, "--json").out.splitlines()]
    assert [(each["index"], each["error"]["code"]) for each in listed] == [
        (1, "rate_limited"),
        (4, "refusal"),
    ]

    grouped = shell.run("errors", batch_id, "--group-by", "code").out
    assert re.search(r"^rate_limited +│ 1 +│ #1 +│ slow down", grouped, re.M)
    as_json = shell.run("errors", batch_id, "--group-by", "code", "--json")
    assert as_json.json == {"rate_limited": 1, "refusal": 1}


def test_the_same_idempotency_key_gives_the_same_id(shell: Shell) -> None:
    submit = ("submit", "double", "-i", "-", "--idempotency-key", "monday")
    first, second = (shell.run(*submit, stdin="1\n2\n") for _ in range(2))

    assert re.fullmatch(r"batch_[0-9a-f]{24}\n", first.out)
    assert second.out == first.out
    assert second.code == 0


def test_results_come_as_far_as_they_are_or_are_waited_for(shell: Shell) -> None:
    gate = shell.folder / "gate"
    shell.write(
        "gated.jsonl",
        [{"path": "seen", "gate": str(shell.folder if i == 0 else gate)} | {"value": i}
         for i in range(3)],
    )  # fmt: skip
    found = shell.run("submit", "gated", "-i", "gated.jsonl").out.strip()
    wait_until(lambda: shell.run("results", found).out, what="the first item has ended")

    so_far = shell.run("results", found)
    assert [json.loads(line)["index"] for line in so_far.out.splitlines()] == [0]
    assert so_far.err == "2 items have not ended yet; --wait waits for them\n"
    assert shell.run("status", found).code == 0, "it has not ended, so nothing is wrong yet"

    waiting = shell.start("results", found, "--wait")
    waiting.wait_for('"index":0')
    assert not waiting.ended
    gate.touch()
    assert waiting.wait() == 0
    assert [json.loads(line)["index"] for line in waiting.out.splitlines()] == [0, 1, 2]


def test_batches_are_listed_newest_first_and_page_by_page(shell: Shell, batch_id: str) -> None:
    newer = [shell.run("submit", "double", "-i", "-", stdin="1\n").out.strip() for _ in range(2)]

    table = shell.run("list", env={"COLUMNS": "40"}).out
    assert all(found in table for found in (batch_id, *newer)), "ids are whole in a pipe"
    assert "\x1b" not in table

    first = [json.loads(x)["id"] for x in shell.run("list", "--limit", "2", "--json").out.split()]
    assert first == newer[::-1]
    rest = shell.run("list", "--after", newer[0], "--json").out.splitlines()
    assert batch_id in [json.loads(line)["id"] for line in rest]
    assert not {json.loads(line)["id"] for line in rest} & set(newer)


def test_run_uses_what_runs_already(shell: Shell) -> None:
    before = shell.processes()
    shell.write("in.jsonl", [3, 4])

    answer = shell.run("run", "double", "-i", "in.jsonl", "-o", "out.jsonl", "--json")

    assert answer.code == 0, answer.err
    assert [each["output"] for each in results(shell.folder / "out.jsonl")] == [6, 8]
    assert shell.run("status", answer.json["id"]).code == 0
    assert shell.processes() == before


def test_flower_shows_the_items_to_those_who_know_its_password(
    running: tuple[Shell, Running, int],
) -> None:
    shell, up, port = running
    said = re.search(r"Flower +(\S+) \(user (\S+), password (\S+)\)", up.err)
    assert said, up.err
    address, user, password = said.groups()
    assert address == f"http://127.0.0.1:{port}"
    assert not any(password in command for command in shell.processes().values())
    with connect(json.loads((shell.home / "server.json").read_text())["url"]) as redis:
        wait_until(lambda: redis.pubsub_numpat() > 0, what="Flower listens to events")

    found = shell.run("submit", "double", "-i", "-", stdin="1\n").out.strip()

    for path in ("/", "/tasks", "/api/tasks", "/api/workers"):
        with pytest.raises(HTTPError) as refusal:
            urlopen(address + path, timeout=10)
        refusal.value.close()
        assert refusal.value.code == 401, path
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    tasks = Request(f"{address}/api/tasks", headers={"Authorization": f"Basic {login}"})

    def seen() -> bool:
        with urlopen(tasks, timeout=10) as answer:
            return f"{found}:0" in json.loads(answer.read())

    wait_until(seen, what="Flower shows the item")


def test_without_its_password_its_redis_says_nothing(shell: Shell) -> None:
    url = json.loads((shell.home / "server.json").read_text())["url"]
    open_url = re.sub(r"//.*@", "//", url)

    answer = shell.run("list", env={"BATCHORD_REDIS_URL": open_url})

    assert answer.code == 2
    assert "refuses us" in answer.err
    assert answer.err.count("\n") == 1


def test_what_it_recorded_survives_its_end_and_nothing_else_does(tmp_path: Path) -> None:
    shell, up_alone = Shell(tmp_path / "shell"), (*UP, "--flower-port", "0")
    try:
        up = shell.start(*up_alone)
        up.wait_for(READY)
        server_file = shell.home / "server.json"
        assert server_file.stat().st_mode & 0o777 == 0o600
        assert shell.home.stat().st_mode & 0o777 == 0o700
        with (shell.home / "lock").open() as lock, pytest.raises(BlockingIOError):
            # Two servers that write to one folder would spoil its data.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = shell.run("submit", "double", "-i", "-", stdin="1\n2\n").out.strip()
        assert shell.run("watch", found, "--json").json["status"] == "completed"

        second = shell.run(*UP)
        assert second.code == 2
        assert "there is a Redis already" in second.err
        assert "batchord worker" in second.err
        assert second.err.count("\n") == 1

        up.send(signal.SIGINT)
        assert up.wait() == 0, up.err
        shell.check_nothing_is_left(timeout=0)
        assert not server_file.exists()
        assert "no Redis" in shell.run("list").err

        up = shell.start(*up_alone)
        up.wait_for(READY)
        outputs = [json.loads(line)["output"] for line in shell.run("results", found).out.split()]
        assert outputs == [2, 4]

        up.send(signal.SIGKILL)
        up.wait()
        shell.check_nothing_is_left(timeout=10)
        assert server_file.exists(), "it could not be taken back"
        # What a killed one left behind does not stand in the way of the next.
        up = shell.start(*up_alone)
        up.wait_for(READY)
        assert shell.run("status", found).code == 0
        up.send(signal.SIGTERM)
        assert up.wait() == 0, up.err
        shell.check_nothing_is_left(timeout=0)
    finally:
        shell.close()


def _answers(port: int) -> bool:
    try:
        urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
    except HTTPError as error:
        error.close()
    except (URLError, ConnectionError):
        return False
    return True
