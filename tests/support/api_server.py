"""`batchord serve` as a process of a deployment, and the official SDK as its client."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import openai

from batchord.gateway.keys import hash_of, new_key
from tests.support.cli_harness import BIN
from tests.support.harness import Deployment, Process
from tests.support.waiting import wait_until

CHAT: Final = "/v1/chat/completions"


def request(number: int, text: str | None = None, **more: Any) -> dict[str, Any]:
    """A line: `more` stands in for fields, or takes them away where it is None."""
    messages = [{"role": "user", "content": text or f"text {number}"}]
    line = {
        "custom_id": f"request-{number}",
        "method": "POST",
        "url": CHAT,
        "body": {"model": "m", "messages": messages},
        **more,
    }
    return {name: value for name, value in line.items() if value is not None}


def jsonl(lines: Iterable[Any]) -> bytes:
    """A file of these lines; what is text already is taken as it is."""
    return "".join(
        f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines
    ).encode()


class ApiServer:
    """A server with a key for each tenant; started again, it has the same port."""

    def __init__(
        self,
        deployment: Deployment,
        tenants: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        routes: str = "",
    ) -> None:
        """`tenants`: by name, the lines of its table beside the hash."""
        self._deployment = deployment
        self._env = dict(env or {})
        self.keys = {name: new_key() for name in tenants or {"default": ""}}
        self.file = deployment.folder / "keys.toml"
        tables = [
            f'[keys.{name}]\nsha256 = "{hash_of(key)}"\n{(tenants or {}).get(name, "")}\n'
            for name, key in self.keys.items()
        ]
        self.file.write_text("\n".join(tables) + routes)
        self.port = 0
        self.process: Process = self.start()

    def start(self, env: Mapping[str, str] | None = None) -> Process:
        """Start the process, and return once it listens."""
        home = self._deployment.folder / "home"
        said = {"BATCHORD_HOME": str(home), **self._env, **(env or {})}
        arguments = ("serve", "--port", str(self.port), "--keys", str(self.file))
        process = self._deployment.start_script(BIN / "batchord", *arguments, env=said)
        wait_until(lambda: "Serving" in process.log or not process.alive, "it listens", timeout=60)
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", process.log)
        assert found, f"it ended at once:\n{process.log}"
        self.port, self.process = int(found[1]), process
        return process

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def files(self) -> list[str]:
        """Return the names in its folder of files."""
        folder = self._deployment.folder / "home" / "files"
        return sorted(each.name for each in folder.iterdir()) if folder.exists() else []

    def client(self, tenant: str = "default", **options: Any) -> openai.OpenAI:
        """The official SDK with a tenant's key."""
        return openai.OpenAI(base_url=f"{self.root}/v1", api_key=self.keys[tenant], **options)


def make(client: openai.OpenAI, lines: Iterable[Any] | bytes, **options: Any) -> Any:
    """Upload the lines and create a batch of them."""
    content = lines if isinstance(lines, bytes) else jsonl(lines)
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    asked = {"endpoint": CHAT, "completion_window": "24h", **options}
    return client.batches.create(input_file_id=file.id, **asked)


def ended(client: openai.OpenAI, batch: Any, *, timeout: float = 60) -> Any:
    """Wait for the end of a batch, as any caller of OpenAI's does, and return it."""

    def look() -> Any:
        found = client.batches.retrieve(batch.id)
        return found if found.status in ("completed", "failed", "expired", "cancelled") else None

    return wait_until(look, f"batch {batch.id} ends", timeout=timeout)


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file; none without a file."""
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
