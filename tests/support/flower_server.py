"""A real Flower on loopback, behind a password, that watches a deployment's workers."""

import base64
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from tests.support.harness import Deployment, wait_until
from tests.support.valkey import free_port

LOGIN = "watcher:only-for-this-test"


class Site:
    """A Flower that runs somewhere."""

    def __init__(self, url: str) -> None:
        self.url = url

    def request(
        self,
        path: str,
        *,
        method: str = "GET",
        login: str | None = LOGIN,
        headers: dict[str, str] | None = None,
        data: Any = None,
    ) -> Request:
        """Return what is sent to ask for a page; `data` goes as JSON."""
        body = None if data is None else json.dumps(data).encode()
        request = Request(f"{self.url}{path}", body, headers or {}, method=method)
        if login is not None:
            token = base64.b64encode(login.encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        return request

    def ask(self, path: str, **options: Any) -> tuple[int, str]:
        """Return the status and the text of an answer; status 0 if nobody answers.

        `options`: as for `request`.
        """
        try:
            with urlopen(self.request(path, **options), timeout=10) as answer:
                return int(answer.status), str(answer.read().decode())
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (URLError, ConnectionError):
            return 0, ""

    def get(self, path: str, *, login: str | None = LOGIN) -> str:
        """Return a page, which must be there."""
        status, text = self.ask(path, login=login)
        assert status == 200, f"{path}: {status} {text}"
        return text

    @contextmanager
    def events(
        self, path: str, *, login: str | None = LOGIN
    ) -> Iterator[Iterator[tuple[str, str]]]:
        """Listen to a page's server-sent events: (event, data); it ends when the server ends it."""
        with urlopen(self.request(path, login=login), timeout=20) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            yield _events(answer)

    def json(self, path: str) -> Any:
        """Return what a page says in JSON."""
        return json.loads(self.get(path))

    def status(self, path: str, *, login: str | None = LOGIN) -> int:
        """Return the HTTP status of a page; 0 if nobody answers."""
        return self.ask(path, login=login)[0]

    def tasks(self, **query: str) -> dict[str, dict[str, Any]]:
        """Return the tasks that the API finds, by id."""
        found: dict[str, dict[str, Any]] = json.loads(self.get(f"/api/tasks?{urlencode(query)}"))
        return found


def _events(lines: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    event, data = "message", []
    for line in lines:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            event = value
        elif field == "data":
            data.append(value)
        elif not field and data:
            yield event, "\n".join(data)
            event, data = "message", []


class Flower(Site):
    """Flower as the README has it started, `celery -A batchord.worker.app flower`."""

    def __init__(
        self,
        deployment: Deployment,
        *options: str,
        login: str | None = LOGIN,
        env: dict[str, str] | None = None,
    ) -> None:
        port = free_port()
        super().__init__(f"http://127.0.0.1:{port}")
        self._deployment = deployment
        command = ["celery", "-A", "batchord.worker.app", "flower", "--address=127.0.0.1"]
        self.process = deployment.start(
            [*command, f"--port={port}", *options],
            "flower",
            env={**({} if login is None else {"FLOWER_BASIC_AUTH": login}), **(env or {})},
        )

    def wait(self) -> None:
        """Return when it answers and listens to events; what happened before it never sees.

        Workers must be ready by then: they listen too, for commands.
        """
        wait_until(lambda: self.status("/healthcheck") == 200, what="Flower answers", timeout=30)
        wait_until(
            lambda: self._listeners() >= len(self._deployment.processes),
            what="Flower listens to events",
        )

    def _listeners(self) -> int:
        """How many connections of this database listen to what is published."""
        database = self._deployment.url.rsplit("/", 1)[1]
        clients = self._deployment.redis.client_list()
        return sum(each["db"] == database and each["psub"] != "0" for each in clients)
