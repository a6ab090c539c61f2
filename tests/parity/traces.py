"""A server that takes LangSmith's traces, over real HTTP, from its real client."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self


class Traces:
    """Notes the runs that are posted to it."""

    def __init__(self) -> None:
        posted: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # Without this, bodies are in parts and compressed.
                ingest = {"use_multipart_endpoint": False, "size_limit": 100}
                ingest |= {"size_limit_bytes": 20_000_000, "scale_up_nthreads_limit": 1}
                ingest |= {"scale_up_qsize_trigger": 1_000, "scale_down_nempty_trigger": 4}
                self._answer({"batch_ingest_config": ingest})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                posted.extend(body.get("post", ()))
                self._answer({})

            def _answer(self, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                """Write nothing."""

        self._posted = posted
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that traces to it."""
        return {
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "LANGSMITH_API_KEY": "none",
        }

    def runs(self) -> list[Any]:
        """Return the runs so far, as they were when they began or were posted whole."""
        return list(self._posted)

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, name="traces", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
