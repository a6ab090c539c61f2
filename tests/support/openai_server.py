"""A real HTTP server on loopback that speaks OpenAI's wire format and misbehaves when told to.

Tests reach it through the real SDK, from this process or from worker processes:

    with OpenAIServer() as server:
        server.fail_next(429, retry_after=0.2)
        client = openai.OpenAI(base_url=server.base_url, api_key="test")

`python -m tests.support.openai_server --port 0` prints its base URL and serves until it is
terminated.
"""

import argparse
import asyncio
import itertools
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.support import openai_answers as answers
from tests.support.openai_answers import JsonObject
from tests.support.openai_batches import Batches
from tests.support.openai_posts import POSTS
from tests.support.openai_responses import response
from tests.support.openai_rules import Failure, Rule, Rules, embedding_failure

DEFAULT_DIMENSIONS = 64

#: The routes of files and batches, and the methods of `Batches` that answer.
BATCH_API = (
    ("POST", "/v1/files", "add_file"),
    ("GET", "/v1/files", "list_files"),
    ("DELETE", "/v1/files/{id}", "delete_file"),
    ("GET", "/v1/files/{id}/content", "content"),
    ("POST", "/v1/batches", "create"),
    ("GET", "/v1/batches", "list_batches"),
    ("GET", "/v1/batches/{id}", "retrieve"),
    ("POST", "/v1/batches/{id}/cancel", "cancel"),
)

Delay = float | Callable[[str], float]
Answer = Callable[[JsonObject, Rule | None], web.Response]
Spoil = Callable[[list[Any], JsonObject], web.Response]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request that arrived; `finished` is None while it is in flight."""

    id: str
    path: str
    body: JsonObject
    headers: Mapping[str, str]
    #: Seconds of `time.monotonic()`.
    started: float
    finished: float | None = None
    #: The HTTP status of the answer; None if none was sent (in flight, dropped, caller gone).
    status: int | None = None

    @property
    def text(self) -> str:
        """All messages or embedding inputs, else the path: where a rule's `match` is looked for."""
        if self.path.startswith(("/v1/files", "/v1/batches")):
            return self.path
        return answers.request_text(self.body)


class OpenAIServer(Rules):
    """Serves chat completions, responses, embeddings, models and batches (`batches`).

    Each rule holds until `reset()`.

    `delay` is seconds before an answer, or a function from the request's text to seconds.
    `shuffle_embeddings` answers out of order, with the right `index`; `spoil_embeddings` makes of
    the texts and their good answer what is sent. `cached_tokens` of a chat's prompt are said to be
    so; without `tells_usage` a chat says nothing of tokens. `answers_as` has the model that an
    answer names, by a text of the request. `api_key`, when given, is the only key let in.
    """

    delay: Delay
    shuffle_embeddings: bool
    spoil_embeddings: Spoil | None
    cached_tokens: int
    tells_usage: bool
    answers_as: dict[str, str]
    batches: Batches
    peak_in_flight: int

    def __init__(self, *, port: int = 0, api_key: str | None = None) -> None:
        super().__init__()
        self._port = port
        self._api_key = api_key
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._in_flight = 0
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="openai-server", daemon=True)
        self.reset()

    def reset(self) -> None:
        """Forget all rules and all recorded requests; answer at once again."""
        self.forget_rules()
        with self._lock:
            self._requests: dict[str, Request] = {}
            self.peak_in_flight = self._in_flight
        self.delay = 0.0
        self.shuffle_embeddings = False
        self.spoil_embeddings = None
        self.cached_tokens = 0
        self.tells_usage = True
        self.answers_as = {}
        self.batches = Batches(self._execute)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> list[Request]:
        """The requests so far in order of arrival: a copy that changes no more."""
        with self._lock:
            return list(self._requests.values())

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answer now."""
        return self._in_flight

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            raise self._failed
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:
            self._failed = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self._handler(self._chat))
        app.router.add_post("/v1/responses", self._handler(self._response))
        app.router.add_post("/v1/embeddings", self._handler(self._embeddings))
        for path, made in POSTS.items():
            app.router.add_post(path, self._handler(_post(made)))
        app.router.add_get("/v1/models", self._handler(self._models))
        for method, path, name in BATCH_API:
            app.router.add_route(method, path, self._handler(self._of_batches(name)))
        # A caller that hangs up cancels its handler, so that a test sees abandoned requests.
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        try:
            await self._listen(runner)
            self._ready.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        self._runner = runner
        await web.TCPSite(runner, "127.0.0.1", self._port, backlog=1_024).start()
        self._port = runner.addresses[0][1]

    def refuse_connections(self, seconds: float) -> None:
        """Drop all connections and refuse new ones; return after that many seconds, at its end."""
        asyncio.run_coroutine_threadsafe(self._refuse(seconds), self._loop).result()

    async def _refuse(self, seconds: float) -> None:
        for site in list(self._runner.sites):
            await site.stop()
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(seconds)
        await self._listen(self._runner)

    def _handler(self, answer: Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(http: web.Request) -> web.StreamResponse:
            try:
                body = await _body_of(http)
            except json.JSONDecodeError as error:
                return Failure(status=400, message=f"invalid JSON: {error}").response()
            request = self._arrived(http, body)
            response: web.Response | None = None
            try:
                response = await self._respond(http, request, answer)
                response.headers["x-request-id"] = request.id
                return response
            finally:
                dropped = http.transport is None or http.transport.is_closing()
                self._left(request.id, None if response is None or dropped else response.status)

        return handle

    async def _respond(self, http: web.Request, request: Request, answer: Answer) -> web.Response:
        key = http.headers.get("authorization", "").removeprefix("Bearer ")
        if self._api_key is not None and key != self._api_key:
            return Failure(status=401, message="Incorrect API key provided").response()
        text = request.text
        rule = self.take_rule(text)
        if rule is not None and rule.action == "hang":
            await asyncio.Event().wait()
        seconds = self.delay(text) if callable(self.delay) else self.delay
        if seconds > 0:
            await asyncio.sleep(seconds)
        if rule is not None and rule.action == "drop" and http.transport is not None:
            http.transport.abort()
        if rule is not None and rule.action == "fail":
            return rule.failure.response()
        return answer(request.body, rule)

    def _arrived(self, http: web.Request, body: JsonObject) -> Request:
        with self._lock:
            request = Request(
                id=f"req_{next(self._ids)}",
                path=http.path,
                body=body,
                headers={name.lower(): value for name, value in http.headers.items()},
                started=time.monotonic(),
            )
            self._requests[request.id] = request
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        return request

    def _left(self, request_id: str, status: int | None) -> None:
        with self._lock:
            self._in_flight -= 1
            # A reset may have forgotten the request while it was in flight.
            if request_id in self._requests:
                self._requests[request_id] = replace(
                    self._requests[request_id], finished=time.monotonic(), status=status
                )

    def _chat(self, body: JsonObject, rule: Rule | None) -> web.Response:
        if not body.get("messages"):
            message = "Invalid 'messages': empty array."
            return Failure(status=400, message=message, param="messages").response()
        if body.get("stream"):
            return Failure(status=400, message="no streaming here", param="stream").response()
        content: str | None = answers.chat_content(body)
        refusal, finish = None, "stop"
        match rule.action if rule is not None else None:
            case "truncate":
                content, finish = str(content)[: len(str(content)) // 2], "length"
            case "refuse":
                content, refusal = None, "I'm sorry, I cannot assist with that request."
            case "filter":
                content, finish = None, "content_filter"
            case "garbage":
                content = "This is not what the schema asked for."
        return web.json_response(
            {
                "id": f"chatcmpl-{answers.stable_id(body)}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": self._model_of(body),
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": finish,
                        "logprobs": None,
                        "message": {"role": "assistant", "content": content, "refusal": refusal},
                    }
                ],
                "usage": answers.chat_usage(body, content or refusal or "", self.cached_tokens)
                if self.tells_usage
                else None,
            }
        )

    def _response(self, body: JsonObject, rule: Rule | None) -> web.Response:
        if not body.get("input"):
            message = "Missing required parameter: 'input'."
            return Failure(status=400, message=message, param="input").response()
        if body.get("stream"):
            return Failure(status=400, message="no streaming here", param="stream").response()
        action, code = (None, None) if rule is None else (rule.action, rule.failure.code)
        answer = response(body, action, code, self.cached_tokens)
        return web.json_response({**answer, "model": self._model_of(body)})

    def _of_batches(self, name: str) -> Answer:
        def answer(body: JsonObject, rule: Rule | None) -> web.Response:
            made: web.Response = getattr(self.batches, name)(body)
            return made

        return answer

    def _execute(self, url: str, body: JsonObject) -> tuple[int, JsonObject]:
        """Run a request of a batch, under the same rules as any other."""
        answer = {
            "/v1/chat/completions": self._chat,
            "/v1/responses": self._response,
            "/v1/embeddings": self._embeddings,
        }[url]
        rule = self.take_rule(answers.request_text(body))
        failed = rule is not None and rule.action == "fail"
        made = rule.failure.response() if rule is not None and failed else answer(body, rule)
        return made.status, json.loads(made.text or "{}")

    def _model_of(self, body: JsonObject) -> Any:
        text = answers.request_text(body)
        named = (model for match, model in self.answers_as.items() if match in text)
        return next(named, body.get("model"))

    def _embeddings(self, body: JsonObject, rule: Rule | None) -> web.Response:
        refused = embedding_failure(answers.embedding_inputs(body))
        if refused is not None:
            return refused.response()
        encoding = body.get("encoding_format", "float")
        dimensions = body.get("dimensions") or DEFAULT_DIMENSIONS
        data: list[dict[str, Any]] = []
        for index, text in enumerate(answers.embedding_inputs(body)):
            vector = answers.encode_vector(answers.vector(text, dimensions), encoding)
            data.append({"object": "embedding", "index": index, "embedding": vector})
        if self.shuffle_embeddings:
            random.Random(len(data)).shuffle(data)
        tokens = answers.count_tokens(answers.request_text(body))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        answer = {"object": "list", "data": data, "model": body.get("model"), "usage": usage}
        if self.spoil_embeddings is not None:
            return self.spoil_embeddings(answers.embedding_inputs(body), answer)
        return web.json_response(answer)

    def _models(self, body: JsonObject, rule: Rule | None) -> web.Response:
        names = ("test-model", "test-embedding")
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in names
        ]
        return web.json_response({"object": "list", "data": data})


async def _body_of(http: web.Request) -> JsonObject:
    """Return all text of a request: of its path, its query and its body."""
    said: JsonObject = {**http.match_info, **http.query}
    if http.content_type.startswith("multipart/"):
        for name, value in (await http.post()).items():
            if isinstance(value, web.FileField):
                with value.file as file:
                    said |= {"filename": value.filename, "content": file.read()}
            else:
                said[name] = value
    elif http.can_read_body:
        said |= await http.json()
    return said


def _post(made: Callable[[JsonObject], JsonObject]) -> Answer:
    return lambda body, _: web.json_response(made(body))


def main() -> None:
    """Print the base URL and serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.openai_server", description=main.__doc__
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with OpenAIServer(port=options.port) as server:
        server.delay = options.delay
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        stop.wait()


if __name__ == "__main__":
    main()
