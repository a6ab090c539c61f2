"""Wrong first moves, each with its answer in one line that names the cure.

A move that is refused writes nothing, sends nothing to the provider and replaces no file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import Deploy
from tests.support.cli_harness import Answer, Shell
from tests.support.harness import Deployment, provider_env
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

#: The module of a newcomer: README's chain, and one whose model nobody has named.
TRIAGE = """
from batchord import Chat, Prompt, register

register("triage", Prompt("Read this ticket: {ticket}") | Chat("test-model"))
register("modelless", Prompt("Read this ticket: {ticket}") | Chat())
"""

#: A chain that no worker has.
EXTRA = """
from batchord import register

class Guest:
    def invoke(self, value):
        return value

register("extra", str)
register("guest", Guest())
register("typed", lambda number: number, input_type=int)
"""

REFUSED = 2
#: A script whose last line is the error.
RAISED = 1


@dataclass(frozen=True)
class Move:
    """A first move of a newcomer, and what the answer must say."""

    #: A command line, or with `script` a program that uses `client`.
    does: str
    says: tuple[str, ...]
    code: int = REFUSED
    script: bool = False
    #: Where: "served" by workers, "alone" is a Redis without workers, "nowhere" has no Redis.
    at: str = "served"
    stdin: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


def py(does: str, *says: str, **more: str | int) -> Move:
    """A line of Python that raises."""
    return Move(does, says, **{"script": True, "code": RAISED, **more})  # type: ignore[arg-type]


KEY = {"OPENAI_API_KEY": "k"}
#: A home in which nothing can be made: what is told there was told before anything was started.
UNMADE = {"BATCHORD_HOME": "/proc/unmade"}


def early(does: str, *says: str, **env: str) -> Move:
    """A run that is refused before Valkey and workers are started."""
    return Move(f"run {does}", says, at="nowhere", env={**KEY, **UNMADE, **env})


ROWS = "triage --chains triage -i tickets.csv"
GUEST_ROWS = "guest --chains extra -i tickets.csv -o out.csv"
RUN = "run triage --chains triage -i tickets.jsonl"

MOVES = {
    # Before anything runs.
    "no command": Move("", ("batchord run triage", "Run Valkey"), at="nowhere"),
    "a command that is not there": Move("start", ("'start'", "batchord --help"), at="nowhere"),
    "a file as an argument": Move(
        "submit triage tickets.jsonl --chains triage", ("-i", "submit --help")
    ),
    "help without a Redis": Move("flower --help", ("--port", "Flower's own"), code=0, at="nowhere"),
    "a setting with another name": Move(
        "list",
        ("BATCHORD_REDIS is not a setting", "BATCHORD_REDIS_URL?", "no Redis"),
        at="nowhere",
        env={"BATCHORD_REDIS": "redis://127.0.0.1"},
    ),
    "no module of chains": Move(
        "run triage -i tickets.jsonl -o out.jsonl", ("'triage'", "--chains"), at="nowhere"
    ),
    "a module that is not there": Move(
        "run triage --chains triaje -i tickets.jsonl -o out.jsonl", ("'triaje'",), at="nowhere"
    ),
    "another name": Move(
        "run triag --chains triage -i tickets.jsonl -o out.jsonl",
        ("'triag'", "triage"),
        at="nowhere",
    ),
    # A run, before Valkey and workers are started.
    "a prompt of another column": early(
        "--prompt {subject}? -m m -i tickets.csv -o out.csv", "no field subject", "ticket, who"
    ),
    "a prompt of another column, sampled": early(
        "--prompt {subject}? -m m -i tickets.csv -o out.csv --sample 1", "no field subject"
    ),
    "a column that no prompt can name": early(
        "--prompt {ticket(DE)}? -m m -i tickets.csv -o out.csv",
        "{ticket(DE)} is not a plain name: rename the column",
    ),
    # It goes on to where nothing can be made: the model is that of this machine.
    "a prompt for the local model": early(
        "--prompt {ticket}? -i tickets.csv -o out.csv --local-model", "/proc/unmade"
    ),
    "a column to embed that is not there": early(
        "--embed text -i tickets.csv -o out.npy", "no field text", "ticket, who"
    ),
    "no column of ids": early(f"{ROWS} -o out.csv --id number", "'number'", "ticket, who"),
    "an id twice": early(
        "triage --chains triage -i twice.csv -o out.csv --id who",
        "line 3: the id 'a' in column 'who' is that of line 2",
    ),
    "no rows": early("triage --chains triage -i head.csv -o out.csv", "no inputs"),
    "an array called CSV": early(
        "triage --chains triage -i array.json --input-format csv -o out.csv", "JSON, not CSV"
    ),
    "an input of another type": early("typed --chains extra -i tickets.csv -o out.csv", "input 0"),
    "a first row that is too long": early(
        f"{ROWS} -o out.csv",
        "input 0 (line 2)",
        "BATCHORD_MAX_INPUT_BYTES",
        BATCHORD_MAX_INPUT_BYTES="5",
    ),
    "a huge cell": early(
        "triage --chains triage -i huge.csv -o out.csv",
        "input 1 (line 4)",
        "BATCHORD_MAX_INPUT_BYTES",
    ),
    "a run until some day": early(f"{ROWS} -o out.csv --completion-window soon", '"24h"'),
    "a budget of nothing": early(f"{ROWS} -o out.csv --budget-usd 0", "budget", "above 0"),
    "a budget for a stranger": early(f"{GUEST_ROWS} --budget-usd 1", "budget", "report_usage"),
    "a stranger through the provider": early(f"{GUEST_ROWS} --mode provider", "'guest'", "sent"),
    "a stranger from the cache": early(f"{GUEST_ROWS} --cache", "cache", "version="),
    "requests until some day": early(
        "-i requests.jsonl -o out.jsonl --completion-window soon", '"24h"'
    ),
    "requests through the provider": early(
        "-i requests.jsonl -o out.jsonl --mode provider", "for the provider's Batch API as it is"
    ),
    "a workbook": early(f"{ROWS} -o out.xlsx", "written as .xlsx", ".csv, .parquet"),
    "packed by bzip2": early(f"{ROWS} -o out.csv.bz2", "written as .bz2", ".gz"),
    "a matrix of texts": early(
        "--prompt {ticket} -m m -i tickets.csv -o out.npy", "npy is for vectors", "answers.csv"
    ),
    "a matrix that is packed": early("--embed ticket -i tickets.csv -o out.npy.gz", "vectors.npy"),
    "a home that cannot be made": early(f"{ROWS} -o out.csv", "/proc/unmade", "BATCHORD_HOME"),
    # Files.
    "over its own inputs": Move(f"{RUN} -o tickets.jsonl", ("inputs", "another file")),
    "over them by a link": Move(f"{RUN} -o link.jsonl", ("inputs", "another file")),
    "over them by a second name": Move(f"{RUN} -o hard.jsonl", ("inputs", "another file")),
    "its errors over them": Move(
        "run -i requests.jsonl -o out.jsonl --errors requests.jsonl", ("inputs", "another file")
    ),
    "to stdout": Move(f"{RUN} -o -", ("a file", "results.jsonl", "batchord results ID")),
    "results to -": Move("results {ended} -o -", ("without -o", "stdout")),
    "a folder as inputs": Move("submit triage --chains triage -i .", ("'.'", "irectory")),
    "no such file": Move("submit triage --chains triage -i tiket.jsonl", ("tiket.jsonl",)),
    "an empty file": Move("submit triage --chains triage -i -", ("no inputs",)),
    "text that is not JSON": Move(
        "submit triage --chains triage -i -", ("line 1 is not JSON",), stdin="The site is down\n"
    ),
    "numbers as custom_ids": Move(
        "submit triage --chains triage -i -",
        ("custom_id of input 0", "not a int", "str(...)"),
        stdin='{"input": {"ticket": "x"}, "custom_id": 7}\n',
    ),
    # Tables.
    "JSON lines called CSV": Move(
        "submit triage --chains triage -i lines.csv", ("JSON, not CSV", ".jsonl")
    ),
    "an array called JSON lines": Move(
        "submit triage --chains triage -i -",
        ("array of 2 objects", "--input-format json"),
        stdin='[{"ticket": "a"}, {"ticket": "b"}]\n',
    ),
    "an array called JSON": Move(
        "submit triage --chains triage -i array.json --json", ('"total":2',), code=0
    ),
    "a table over its own inputs": Move(
        "run triage --chains triage -i tickets.csv -o tickets.csv", ("inputs", "another file")
    ),
    "a column that is not there": Move(
        "submit triage --chains triage -i tickets.csv --id number", ("'number'", "ticket")
    ),
    "a data frame": Move(
        'import pandas; print(client.submit("triage", pandas.DataFrame({"ticket": ["a", "b"]}))'
        ".request_counts.total)",
        ("2",),
        code=0,
        script=True,
    ),
    # A model, a key, workers.
    "a run without a model": Move(
        f"{RUN.replace('triage', 'modelless', 1)} -o out.jsonl",
        ("no model is named", "OPENAI_MODEL", "--local-model"),
        at="nowhere",
        env=KEY,
    ),
    "a run without a key": Move(
        f"{RUN} -o out.jsonl", ("OPENAI_API_KEY", "--local-model"), at="nowhere"
    ),
    "workers without a model": Move(
        "submit modelless --chains triage -i tickets.jsonl",
        ("no model is named", "OPENAI_MODEL", "batch_"),
        code=0,
    ),
    "a chain that the workers lack": Move(
        "submit extra --chains extra -i tickets.jsonl",
        ("no live worker has chain 'extra'", "modelless, openai-requests, triage", "roll-out"),
    ),
    "ahead of a roll-out": Move(
        "submit extra --chains extra -i tickets.jsonl --allow-unserved",
        ("no live worker has chain 'extra'", "batch_"),
        code=0,
    ),
    "no worker to submit to": Move(
        "submit triage --chains triage -i tickets.jsonl",
        ("no worker is alive", "batchord worker", "batch_"),
        code=0,
        at="alone",
    ),
    "no worker, looked at": Move("status {waiting}", ("no worker is alive",), code=0, at="alone"),
    "no worker, examined": Move("doctor", ("no worker is alive",), code=3, at="alone"),
    "no worker with chains": Move("chains", ("no worker is alive",), code=0, at="alone"),
    "a second up": Move("up --chains triage", ("a Redis already", "batchord worker")),
    # A batch that has ended, or is not there.
    "no id": Move("status", ("ID",)),
    "another id": Move("status batch_123", ("unknown batch", "check the id")),
    "an ended batch is paused": Move("pause {ended}", ("has ended, completed", "retry")),
    "an ended batch is resumed": Move("resume {ended}", ("has ended, completed",)),
    "an ended batch is cancelled": Move("cancel {ended}", ("has ended, completed",)),
    "a code that none has": Move(
        "retry {ended} --code refusl", ("refusl", "prompt_field_missing 1")
    ),
    "a batch that runs is retried": Move("retry {open}", ("only a completed batch",)),
    "a batch that runs is purged": Move("purge {open}", ("not ended", "cancel first")),
    "an age of fruit": Move("purge --older-than banana", ("--older-than", '"24h"')),
    "a window of words": Move(
        "submit triage --chains triage -i tickets.jsonl --completion-window tomorrow",
        ("completion_window", '"24h"'),
    ),
    "the same key for other inputs": Move(
        "submit triage --chains triage -i tickets.jsonl --idempotency-key monday",
        ("'monday'", "inputs are others", "another key"),
    ),
    # The same from Python.
    "one input": py('client.submit("triage", {"ticket": "x"})', "one value", "list of inputs"),
    "one text": py('client.submit("triage", "x")', "one value", "list of inputs"),
    "no inputs": py('client.submit("triage", [])', "at least one"),
    "the chain itself": py(
        "import triage; client.submit(triage.Chat(), [1])", "the name that it is registered under"
    ),
    "ids that are numbers": py(
        'client.submit("triage", [{"ticket": "x"}], custom_ids=[7])', "not a int", "str(...)"
    ),
    "the key again": py(
        'client.submit("triage", [{"ticket": "z"}], idempotency_key="monday")',
        "IdempotencyConflict",
        "inputs are others",
    ),
    "an address without a scheme": py('Client("localhost:6379").list()', "redis://"),
    "a timeout of text": py('client.retrieve("{open}").wait("5")', "timeout: seconds"),
    "a broken template": py('from batchord import Prompt; Prompt("Read {ticket")', "{"),
    "a class for a step": py('from batchord import Chat, Prompt; Prompt("{a}") | Chat', "Chat"),
    "a name with a space": py(
        'from batchord import register; register("my chain", str)', "cannot name a chain"
    ),
}

SCRIPT = "from batchord import Client\nclient = Client()\n"


@dataclass
class Place:
    """Where a move is made."""

    shell: Shell
    deployment: Deployment | None = None
    ids: Mapping[str, str] = field(default_factory=dict)

    def make(self, move: Move) -> Answer:
        does = move.does
        for name, batch_id in self.ids.items():
            does = does.replace(f"{{{name}}}", batch_id)
        if move.script:
            return self.shell.script(f"{SCRIPT}{does}\n", env=move.env)
        return self.shell.run(*does.split(), stdin=move.stdin, env=move.env)

    def end_what_runs(self) -> None:
        """End the batches that a move has submitted: their calls would count for the next move."""
        if self.deployment is None:
            return
        client = self.deployment.client
        for record in client.list():
            if not record.status.ended and record.id not in self.ids.values():
                batch = client.retrieve(record.id)
                batch.cancel()
                batch.wait(60)

    def state(self) -> tuple[dict[str, str], int]:
        """Return what a refused move must leave as it is: files, and the number of batches."""
        files = {
            each.name: each.read_text() for each in self.shell.folder.iterdir() if each.is_file()
        }
        redis = None if self.deployment is None else self.deployment.redis
        return files, 0 if redis is None else redis.zcard("batchord:batches")


def fill(root: Path) -> None:
    """Make what a newcomer has: a module, and files."""
    (root / "triage.py").write_text(TRIAGE)
    (root / "extra.py").write_text(EXTRA)
    tickets = root / "tickets.jsonl"
    tickets.write_text('{"ticket": "The site is down"}\n{"ticket": "Please rename me"}\n')
    (root / "lines.csv").write_text(tickets.read_text())
    (root / "tickets.csv").write_text("ticket,who\nThe site is down,a\nPlease rename me,b\n")
    (root / "twice.csv").write_text("ticket,who\nThe site is down,a\nPlease rename me,a\n")
    (root / "huge.csv").write_text(f'ticket,who\n"a\n",b\n{"x" * 300_000},c\n')
    (root / "head.csv").write_text("ticket,who\n")
    (root / "array.json").write_text('[{"ticket": "a"}, {"ticket": "b"}]')
    (root / "link.jsonl").symlink_to(tickets)
    (root / "hard.jsonl").hardlink_to(tickets)
    body = '{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'
    url = '"method": "POST", "url": "/v1/chat/completions"'
    (root / "requests.jsonl").write_text(f'{{"custom_id": "a", {url}, "body": {body}}}\n')


@pytest.fixture(scope="module")
def places(
    deploy_for_module: Deploy,
    provider_for_module: OpenAIServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Place]]:
    root = tmp_path_factory.mktemp("moves")
    served, alone = deploy_for_module(), deploy_for_module()
    found = {}
    base = {
        name: value
        for name, value in served.env({"NO_COLOR": "1"}).items()
        if name not in ("BATCHORD_REDIS_URL", "BATCHORD_CHAINS")
    }
    for name, deployment in (("served", served), ("alone", alone), ("nowhere", None)):
        env = {} if deployment is None else {"BATCHORD_REDIS_URL": deployment.url}
        shell = Shell(root / name, **{**base, "BATCHORD_HOME": str(root / name / "home"), **env})
        fill(shell.folder)
        found[name] = Place(shell, deployment)
    model = provider_env(provider_for_module)
    del model["OPENAI_MODEL"]
    served.start_worker(
        env={**model, "BATCHORD_CHAINS": "triage", "PYTHONPATH": str(root / "served" / "work")}
    )
    ended = served.client.submit(
        "triage", [{"ticket": "x"}, {"wrong": "x"}], idempotency_key="monday"
    )
    ended.wait(60)
    held = served.client.submit("triage", [{"ticket": "x"}] * 3, max_concurrency=1)
    held.pause()
    found["served"].ids = {"ended": ended.id, "open": held.id}
    script = f"{SCRIPT}import triage\nprint(client.submit('triage', [1]).id)"
    waiting = found["alone"].shell.script(script)
    found["alone"].ids = {"waiting": waiting.out.strip()}
    yield found
    held.cancel()
    for place in found.values():
        place.shell.close()


@pytest.mark.parametrize("name", MOVES)
def test_a_wrong_first_move_is_answered_in_one_line_with_the_cure(
    places: dict[str, Place], provider_for_module: OpenAIServer, name: str
) -> None:
    move = MOVES[name]
    place = places[move.at]
    before, asked = place.state(), len(provider_for_module.requests)
    answer = place.make(move)
    place.end_what_runs()
    assert answer.code == move.code, answer
    lines = answer.err.strip().splitlines()
    if move.code == RAISED:
        lines = lines[-1:]
        assert re.match(r"[\w.]+: ", lines[0]), "an error with a message"
    elif move.code == REFUSED and name != "no command":
        assert len(lines) == len([each for each in lines if each]) <= 2, answer.err
    said = "\n".join([*lines, answer.out])
    for part in move.says:
        assert part in said
    if move.code in (REFUSED, RAISED):
        assert place.state() == before
        assert len(provider_for_module.requests) == asked
