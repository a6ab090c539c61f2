"""SECURITY.md holds: the tests that it names are there, files are private, and secrets stay so."""

import json
import re
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from pydantic import SecretStr

from batchord import Client
from batchord.gateway.keys import PREFIX
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.settings import SERVER_FILE, Settings
from batchord.ledger.storage.batch_store import BatchStore
from tests.support.cli_harness import BIN, CHAINS, Running, Shell
from tests.support.valkey import free_port

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
KEY = "sk-secret-0123456789abcdef"
WEBHOOK = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK_URL = "https://hooks.example.com/token-in-the-path"


def _named() -> list[tuple[str, str]]:
    """The tests that SECURITY.md names: file, function."""
    return re.findall(r"`(tests/\S+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())


def test_each_claim_names_tests_that_are_there() -> None:
    named = _named()
    assert len(named) > 15
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.M), (file, name)


class Machine:
    """`batchord up` with everything that it can run, and a run that was interrupted."""

    def __init__(self, folder: Path) -> None:
        self.shell = Shell(
            folder,
            OPENAI_API_KEY=KEY,
            BATCHORD_WEBHOOK_SECRET=WEBHOOK,
            BATCHORD_WEBHOOK_URL=HOOK_URL,
            BATCHORD_WEBHOOK_HOSTS="hooks.example.com",
        )
        self.home = self.shell.home
        self._commands: list[Running] = []
        self._run()
        self.up = self._open(
            *("up", "--chains", CHAINS, "--processes", "1", "--concurrency", "2"),
            *("--serve", "--serve-port", "0", "--flower-port", str(free_port())),
        )
        self.up.wait_for("Ctrl-C ends it all", timeout=180)
        self._upload()
        self.commands = self.shell.processes()
        assert len(self.commands) > 4, "Valkey, a worker, Flower, the gateway and `up`"

    def _open(self, *args: str) -> Running:
        """Start a command whose new files would be for all."""
        argv = ["/bin/sh", "-c", 'umask 0; exec "$@"', "sh", str(BIN / "batchord"), *args]
        log = self.shell.folder.parent / f"{args[0]}.log"
        running = Running(argv, self.shell.folder, self.shell.env, log)
        self._commands.append(running)
        return running

    def close(self) -> None:
        """Leave nothing running."""
        for running in self._commands:
            running.close()
        self.shell.close()

    def _run(self) -> None:
        self.shell.write("in.jsonl", [{"seconds": 60, "value": 1}, {"seconds": 0, "value": 2}])
        run = self._open(
            *("run", "nap", "--chains", CHAINS, "-i", "in.jsonl", "-o", "out.jsonl"),
            *("--processes", "1"),
        )
        run.wait_for("1/2", timeout=120)
        run.send(signal.SIGINT)
        run.wait(60)

    def _upload(self) -> None:
        [url] = re.findall(r"http://\S+/v1", self.up.err)
        [key] = re.findall(rf"{PREFIX}\S+", self.up.err)
        with openai.OpenAI(base_url=url, api_key=key) as client:
            client.files.create(file=("requests.jsonl", b"{}\n"), purpose="batch")

    def secrets(self) -> dict[str, str]:
        """Return the secrets, by name."""
        url = json.loads((self.home / SERVER_FILE).read_text())["url"]
        [password] = re.findall(r"password (\S+)\)", self.up.err)
        [api_key] = re.findall(rf"{PREFIX}\S+", self.up.err)
        return {
            "the provider's key": KEY,
            "the secret of webhooks": WEBHOOK,
            "the URL of webhooks": HOOK_URL,
            "the password of Redis": url.split(":")[2].split("@")[0],
            "the password of Flower": password,
            "the key of the gateway": api_key,
        }


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("machine") / "shell")
    yield machine
    machine.up.send(signal.SIGINT)
    machine.up.wait(60)
    machine.close()


def test_what_we_write_is_for_its_user_alone(machine: Machine) -> None:
    found = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in [machine.home, *machine.home.rglob("*")]
        if not path.is_socket()
    }
    names = {path.name for path in found}
    assert {"worker.log", SERVER_FILE, "users.acl"} <= names
    assert any("run_" in str(path) for path in found), "the interrupted run is kept"
    assert any(path.parent.name == "files" for path in found), "what was uploaded is there"
    wrong = {
        str(path.relative_to(machine.home)): oct(mode)
        for path, mode in found.items()
        if mode != (0o700 if path.is_dir() else 0o600)
    }
    assert wrong == {}


def test_no_secret_is_on_a_command_line_or_in_a_log(machine: Machine) -> None:
    logs = {path.name: path.read_text(errors="replace") for path in machine.home.rglob("*.log")}
    assert "worker.log" in logs
    for name, secret in machine.secrets().items():
        assert len(secret) > 8
        for command in machine.commands.values():
            assert secret not in command, name
        for log, text in logs.items():
            assert secret not in text, (name, log)


URL = "redis://user:hidden-password@127.0.0.1:1/0"
SETTINGS = Settings(
    redis_url=SecretStr(URL), webhook_secret=SecretStr(WEBHOOK), webhook_url=SecretStr(HOOK_URL)
)

#: What a traceback or a debugger shows of each thing that knows a secret.
SHOWN: dict[str, Callable[[], str]] = {
    "settings": lambda: repr(SETTINGS),
    "settings as text": lambda: str(SETTINGS),
    "settings as JSON": SETTINGS.model_dump_json,
    "a client": lambda: repr(Client(settings=SETTINGS)),
    "a store": lambda: repr(BatchStore(SETTINGS)) + repr(BatchStore(SETTINGS).redis),
    "an app of Celery": lambda: repr(create_app(SETTINGS)),
    "an error": lambda: _error(),
}


def _error() -> str:
    with pytest.raises(Exception, match="Redis") as caught:
        Client(settings=SETTINGS).ping()
    return repr(caught.value) + str(caught.value)


@pytest.mark.parametrize("name", SHOWN)
def test_no_repr_tells_a_secret(name: str) -> None:
    shown = SHOWN[name]()
    for secret in ("hidden-password", WEBHOOK, "token-in-the-path"):
        assert secret not in shown
