"""A real Flower on loopback, behind a password, that watches a deployment's workers."""

import base64
import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from chaos.server import free_port
from tests.harness import Deployment, wait_until

LOGIN = "watcher:only-for-this-test"


class Flower:
    """Flower as the README has it started, `celery -A worker.app flower`."""

    def __init__(self, deployment: Deployment) -> None:
        self._port = free_port()
        self._deployment = deployment
        self.process = deployment.start(
            ["celery", "-A", "worker.app", "flower", "--address=127.0.0.1", f"--port={self._port}"],
            "flower",
            env={"FLOWER_BASIC_AUTH": LOGIN},
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

    def get(self, path: str, *, login: str | None = LOGIN) -> str:
        """Return a page."""
        request = Request(f"http://127.0.0.1:{self._port}{path}")
        if login is not None:
            request.add_header(
                "Authorization", f"Basic {base64.b64encode(login.encode()).decode()}"
            )
        with urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def status(self, path: str, *, login: str | None = LOGIN) -> int:
        """Return the HTTP status of a page; 0 if nobody answers."""
        try:
            self.get(path, login=login)
        except HTTPError as error:
            error.close()
            return error.code
        except (URLError, ConnectionError):
            return 0
        return 200

    def tasks(self, **query: str) -> dict[str, dict[str, Any]]:
        """Return the tasks that the API finds, by id."""
        found: dict[str, dict[str, Any]] = json.loads(self.get(f"/api/tasks?{urlencode(query)}"))
        return found
