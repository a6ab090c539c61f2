"""A chat provider on loopback that costs almost nothing, so that what is measured is the caller.

`python -m benchmarks.llm_server` prints its base URL and serves until it is terminated. It answers
`POST /v1/chat/completions` as OpenAI does: the prompt comes back as `echo: PROMPT`, with usage, and
the model's name says when: `instant`, `fixed-200ms`, or `tail-200ms` (lognormal with a mean of
200 ms and a 99th percentile of 2 s, cut at 3 s; the same prompt always takes the same time).
`POST /v1/embeddings` is answered at once, with vectors of eight numbers.
"""

import asyncio
import base64
import hashlib
import json
import math
import signal
import struct
import sys
import zlib
from statistics import NormalDist
from typing import Final

from benchmarks.inputs import VECTORS

#: Of a lognormal: its mean is exp(MU + SIGMA ** 2 / 2), its 99th percentile exp(MU + 2.326 SIGMA).
SIGMA: Final = 1.428
MU: Final = math.log(0.2) - SIGMA**2 / 2
LONGEST: Final = 3.0

_NORMAL: Final = NormalDist()
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_BODY: Final = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1790000000,"model":%b,'
    b'"choices":[{"index":0,"finish_reason":"stop","logprobs":null,"message":{"role":"assistant",'
    b'"content":%b,"refusal":null}}],"usage":{"prompt_tokens":%d,"completion_tokens":%d,'
    b'"total_tokens":%d}}'
)
_EMBEDDING: Final = b'{"object":"embedding","index":%d,"embedding":"%b"}'
_EMBEDDINGS: Final = (
    b'{"object":"list","model":"instant","data":[%b],'
    b'"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
)
_VECTORS: Final = [base64.b64encode(struct.pack("<8f", *vector)) for vector in VECTORS]
_REFUSED: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def latency(model: str, prompt: str) -> float:
    """Return after how many seconds this prompt is answered."""
    if model == "fixed-200ms":
        return 0.2
    if model == "instant":
        return 0.0
    digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
    even = (int.from_bytes(digest, "big") + 1) / (2**64 + 2)
    return min(LONGEST, math.exp(MU + SIGMA * _NORMAL.inv_cdf(even)))


def response(model: str, prompt: str) -> bytes:
    """Return the whole HTTP response."""
    asked = prompt.count(" ") + 1
    body = _BODY % (
        json.dumps(model).encode(),
        json.dumps(f"echo: {prompt}").encode(),
        asked,
        asked + 1,
        2 * asked + 1,
    )
    return _HEAD % (len(body), body)


class Chat(asyncio.Protocol):
    """One kept connection: reads requests with a Content-Length, answers each when it is due."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._got = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Drop what is due later: it has nowhere to go."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take every request that is there whole."""
        self._got += data
        while (end := self._got.find(_END)) >= 0:
            head = self._got[:end].lower()
            at = head.find(_LENGTH)
            if at < 0:
                self._answer(_REFUSED)
                return
            stop = end + len(_END) + int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
            if len(self._got) < stop:
                return
            body, self._got = self._got[end + len(_END) : stop], self._got[stop:]
            if head.startswith(b"post /v1/embeddings "):
                self._embed(body)
            else:
                self._request(body)

    def _embed(self, body: bytes) -> None:
        """Answer with the vectors of all texts, in base64, as the SDK asks for them."""
        try:
            texts = json.loads(body)["input"]
            found = [_VECTORS[zlib.crc32(text.encode()) % len(_VECTORS)] for text in texts]
        except (ValueError, LookupError, TypeError, AttributeError):
            self._answer(_REFUSED)
            return
        data = b",".join(_EMBEDDING % pair for pair in enumerate(found))
        answer = _EMBEDDINGS % (data, len(texts), len(texts))
        self._answer(_HEAD % (len(answer), answer))

    def _request(self, body: bytes) -> None:
        try:
            asked = json.loads(body)
            model, prompt = asked["model"], asked["messages"][-1]["content"]
        except (ValueError, LookupError, TypeError):
            self._answer(_REFUSED)
            return
        seconds, answer = latency(model, prompt), response(model, prompt)
        if seconds:
            self._loop.call_later(seconds, self._answer, answer)
        else:
            self._answer(answer)

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


async def main() -> None:
    """Print the base URL and serve until SIGINT or SIGTERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(Chat, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
