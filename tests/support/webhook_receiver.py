"""A real receiver of webhooks: HTTPS on loopback, with a certificate of a test's own authority."""

import base64
import secrets
import ssl
import threading
from collections import defaultdict, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, NamedTuple

import trustme
from standardwebhooks import Webhook

HOST: Final = "localhost"
SECRET: Final = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class Received(NamedTuple):
    """One request."""

    headers: dict[str, str]
    body: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str = SECRET) -> Any:
        """Return its event, once the specification's own library has checked its signature."""
        return Webhook(secret).verify(self.body, self.headers)


class Answer(NamedTuple):
    """How one request is answered; with `never`, its body or its headers never end."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    never: str = ""
    hold: threading.Event | None = None


class Receiver:
    """Keeps what it is sent, path by path, and answers as it is told; use `with`."""

    def __init__(self, authority: trustme.CA, *, name: str = HOST) -> None:
        self.received: dict[str, list[Received]] = defaultdict(list)
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)
        self._always: dict[str, Answer] = {}
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def place(self) -> str:
        """The host and the port, as an operator lists them."""
        return f"{HOST}:{self.port}"

    def url(self, path: str) -> str:
        return f"https://{self.place}/{path}"

    def answer(self, path: str, *answers: Answer, always: Answer | None = None) -> None:
        """Answer the next requests so, and those after them with `always`, which is 200."""
        self._answers[path].extend(answers)
        if always is not None:
            self._always[path] = always

    def take(self, path: str, request: Received) -> Answer:
        self.received[path].append(request)
        waiting = self._answers[path]
        return waiting.popleft() if waiting else self._always.get(path, Answer())


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up, or refuse the certificate, are what some tests want."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.take(self.path.removeprefix("/"), Received(headers, body))
            if answer.hold is not None:
                answer.hold.wait(30)
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            while answer.never == "headers":
                self.send_header("X-More", "x" * 1000)
                self.flush_headers()
            self.end_headers()
            while answer.never == "body":
                self.wfile.write(b"x" * 65536)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    return Handler
