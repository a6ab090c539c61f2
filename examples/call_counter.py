"""Count the calls that go to a model: a relay on loopback between a program and its provider."""

import threading
import urllib.error
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

_OPENAI: Final = "https://api.openai.com/v1"
#: Headers of a request that are passed on.
_PASSED: Final = ("Authorization", "Content-Type")
#: Seconds for an answer.
_TIMEOUT: Final = 600


class CallCounter:
    """Relays POST requests to a provider, and counts them. Use it in a `with` block.

    `provider`: its base URL; None is OpenAI.
    """

    def __init__(self, provider: str | None = None) -> None:
        self._provider = (provider or _OPENAI).rstrip("/")
        self._changed = threading.Condition()
        #: Requests that have arrived, and answers that were given.
        self.asked = self.answered = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def base_url(self) -> str:
        """The value for OPENAI_BASE_URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, timeout: float) -> None:
        """Return at the next request or answer, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait(timeout)

    def relay(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Ask the provider; return the status and the body of its answer."""
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
        url = f"{self._provider}{path.removeprefix('/v1')}"
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
                found = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            found = error.code, error.read()
        with self._changed:
            self.answered += 1
            self._changed.notify_all()
        return found


def _handler(counter: CallCounter) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Relay one call."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name: self.headers[name] for name in _PASSED if name in self.headers}
            status, answer = counter.relay(self.path, headers, body)
            # A caller that was interrupted does not wait for the answer.
            with suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
