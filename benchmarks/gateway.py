"""Time and memory of `batchord serve` with a large file: `python -m benchmarks.gateway`.

50,000 requests in 200 MB, through the official SDK: upload, validation, the first call, the end of
the batch, download. The server's resident memory is looked at 20 times a second: exit code 1 if it
was ever above 150 MB. Redis, one worker process and a provider on loopback run beside it.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import openai

from batchord.gateway.keys import hash_of, new_key
from benchmarks import procfs
from benchmarks.process import Process, wait_until
from tests.support.valkey import Server

LIMIT_MB: Final = 150
CHAT: Final = "/v1/chat/completions"


def lines(count: int, size: int) -> Iterator[bytes]:
    """Yield requests of about `size` bytes, of words, each with a text of its own."""
    words = "the quick brown fox jumps over the lazy dog and runs away "
    filler = words * (size // len(words) + 1)
    for n in range(count):
        begin = n % len(words)
        text = f"{n} {filler[begin : begin + max(0, size - 180)]}"
        body = {"model": "instant", "messages": [{"role": "user", "content": text}]}
        line = {"custom_id": f"row-{n}", "method": "POST", "url": CHAT, "body": body}
        yield json.dumps(line).encode() + b"\n"


class Memory:
    """Looks at the resident memory of processes; its peak since it was last asked."""

    def __init__(self, process: Process) -> None:
        self._process, self._peak = process, 0
        self.highest = 0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self._peak = max(self._peak, procfs.rss(self._process.pids()) or 0)
            time.sleep(0.05)

    def take(self) -> float:
        """Return the peak in MB, and start a new measurement."""
        now = procfs.rss(self._process.pids()) or 0
        peak, self._peak = max(self._peak, now) / 1e6, 0
        self.highest = max(self.highest, int(peak))
        return peak


def timed(what: str, memory: Memory, do: Callable[[], Any]) -> Any:
    """Do it, and say how long it took, and the server's memory meanwhile."""
    memory.take()
    began = time.perf_counter()
    found = do()
    seconds = time.perf_counter() - began
    print(f"{what:34} {seconds:8.1f} s   server {memory.take():6.0f} MB", flush=True)
    return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument(
        "--cancel", action="store_true", help="make no calls, but cancel, and download the errors"
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(Server(folder / "redis"))
        source = folder / "requests.jsonl"
        size = options.megabytes * 1_000_000 // options.requests
        with source.open("wb") as file:
            file.writelines(lines(options.requests, size))
        print(f"{options.requests:,} requests, {source.stat().st_size / 1e6:.0f} MB")
        client, server = start(stack, folder, redis.url)
        sys.exit(measure(client, Memory(server), source, cancel=options.cancel))


def start(stack: ExitStack, folder: Path, url: str) -> tuple[openai.OpenAI, Process]:
    """Start provider, worker and server; return a client, and the server's process."""
    key = new_key()
    keys = folder / "keys.toml"
    keys.write_text(f'[keys.bench]\nsha256 = "{hash_of(key)}"\n')
    env = {**os.environ, "BATCHORD_REDIS_URL": url, "BATCHORD_HOME": str(folder / "home")}
    python = [sys.executable, "-P"]

    def run(name: str, *argv: str, more: dict[str, str] | None = None) -> Process:
        log = folder / f"{name}.log"
        process = Process([*python, *argv], env={**env, **(more or {})}, log=log)
        stack.callback(process.stop)
        return process

    provider = run("provider", "-m", "benchmarks.llm_server")
    base = _said(provider, "http")
    calls = {"OPENAI_BASE_URL": base, "OPENAI_API_KEY": "none"}
    worker = run("worker", "-m", "batchord.worker", "-c", "64", "-l", "WARNING", more=calls)
    program = str(Path(sys.executable).with_name("batchord"))
    server = run("serve", program, "serve", "--port", "0", "--keys", str(keys))
    address = _said(server, "http")
    wait_until(lambda: worker.alive, [worker], "the worker runs")
    return openai.OpenAI(base_url=address, api_key=key, timeout=600), server


def _said(process: Process, word: str) -> str:
    def found() -> list[str]:
        return [each for each in process.log.read_text().split() if each.startswith(word)]

    wait_until(lambda: bool(found()), [process], "it says where it listens")
    return found()[0]


def _has_begun(batch: Any) -> bool:
    return bool(batch.request_counts.completed) or _has_ended(batch)


def _has_ended(batch: Any) -> bool:
    return batch.status in ("completed", "cancelled")


def measure(client: openai.OpenAI, memory: Memory, source: Path, *, cancel: bool) -> int:
    """Run the file, and return the exit code."""
    time.sleep(1)
    print(f"{'idle':34} {'':8}     server {memory.take():6.0f} MB")
    file = timed("upload", memory, lambda: client.files.create(file=source, purpose="batch"))
    created = time.perf_counter()
    batch = timed(
        "create",
        memory,
        lambda: client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        ),
    )

    def until(good: Callable[[Any], bool]) -> Any:
        while not good(found := client.batches.retrieve(batch.id)):
            time.sleep(0.1)
        return found

    timed("validation, until in_progress", memory, lambda: until(lambda b: b.in_progress_at))
    if cancel:
        client.batches.cancel(batch.id)
    timed("then to the first outcome", memory, lambda: until(_has_begun))
    print(f"{'create to the first outcome':34} {time.perf_counter() - created:8.1f} s")
    done = timed("then to the end", memory, lambda: until(_has_ended))
    target = source.with_name("output.jsonl")

    def download() -> None:
        with target.open("wb") as file:
            for name in filter(None, (done.output_file_id, done.error_file_id)):
                with client.files.with_streaming_response.content(name) as answer:
                    for block in answer.iter_bytes():
                        file.write(block)

    timed("download, the first", memory, download)
    timed("download, the second", memory, download)
    with target.open("rb") as file_:
        count = sum(1 for _ in file_)
    size = target.stat().st_size / 1e6
    print(f"{count:,} lines, {size:.0f} MB; the server's peak: {memory.highest} MB")
    if memory.highest > LIMIT_MB:
        print(f"more than {LIMIT_MB} MB")
    return int(memory.highest > LIMIT_MB or count != done.request_counts.total)


if __name__ == "__main__":
    main()
